"""The Triton kernels compiled ahead of time for sm_80, sm_90 and gfx942: they compile, fit, use tensor cores, spill
nothing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from cases import key_for
from compilation import SHARED_MEMORY, Compiled, compiled, compiled_for_amd, disassembled, launch_of, overwritten
from torch import Tensor

from facemix_ops.triton import act_mix, act_mix_linear, conv_mix, group_mix, tiles, unmix_linear

IDENTITY, POOL = [1, 1, 1, 1, 0, 0], [3, 3, 2, 2, 1, 1]
# What a product of 16-bit numbers is made of; tiles of fewer than 64 columns have no more than mma.sync on either.
TENSOR_CORES = {
    "conv_mix": {80: "mma.sync", 90: "wgmma.mma_async"},
    "conv_mix, pool": {80: "mma.sync", 90: "wgmma.mma_async"},
    "conv_mix, pool, no codes": {80: "mma.sync", 90: "wgmma.mma_async"},
    "unmix_linear": {80: "mma.sync", 90: "mma.sync"},
    "unmix_linear, many rows": {80: "mma.sync", 90: "wgmma.mma_async"},
}
KERNELS = (
    "conv_mix",
    "conv_mix, pool",
    "conv_mix, pool, no codes",
    "act_mix, pool",
    "act_mix_jvp, pool",
    "act_mix_vjp",
    "act_mix_vjp, pool",
    "group_mix",
    "group_unmix",
    "unmix_linear",
    "unmix_linear, many rows",
)
capabilities = pytest.mark.parametrize("capability", [80, 90])


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def launch(kernel: str, size: int, dtype: torch.dtype, last: bool = True, pixels: int = 112, channels: int = 64,
           capability: int = 80) -> Any:  # fmt: skip
    """What ResNet's stem and the layers around it launch, in two groups of ``size``; other shapes on request."""
    op, pooled = kernel.split(",")[0], "pool" in kernel
    layout = torch.channels_last if last else torch.contiguous_format

    def images(channels: int, pixels: int) -> Tensor:
        return torch.empty(2 * size, channels, pixels, pixels, dtype=dtype).contiguous(memory_format=layout)

    key = key_for(2 * size, size)
    k, pool = (key.coeffs, key.order), POOL if pooled else IDENTITY
    z, y = images(channels, pixels), images(channels, (pixels + 1) // 2 if pooled else pixels)
    codes = torch.empty_like(y, dtype=torch.uint8)
    scale = torch.empty(channels, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    slope = torch.empty(1, dtype=dtype)
    if op == "conv_mix":
        x, w, b = images(3, 2 * pixels), torch.empty(channels, 3, 7, 7, dtype=dtype), torch.empty(channels, dtype=dtype)
        window, kept = ([2, 2], [3, 3], [1, 1]), codes if pooled and "no codes" not in kernel else None
        with mock.patch.object(conv_mix, "warpgroups", return_value=capability == 90):
            return launch_of(
                conv_mix.conv_mix, x, w, b, *k, *window, 1, 0.0, None, pool, [pixels, pixels], last, y, kept
            )  # fmt: skip
    if op == "act_mix":
        return launch_of(act_mix.act_mix, z, *k, scale, scale, z, 2, 1.0, slope, pool, last, y, codes)
    if op in ("act_mix_jvp", "act_mix_vjp"):
        return launch_of(getattr(act_mix_linear, op), z, y, codes, *k, 1.0, 0.0, slope, pool, last)
    if op in ("group_mix", "group_unmix"):
        return launch_of(group_mix.group_mix, z, *k, z, transpose=op == "group_unmix")
    rows = (2**16 // size if "many" in kernel else pixels) * size
    key = key_for(rows, size)
    v, w = torch.empty(rows, 512, dtype=dtype), torch.empty(channels, 512, dtype=dtype)
    out = torch.empty(rows, channels, dtype=dtype)
    return launch_of(unmix_linear.unmix_linear, v, key.coeffs, key.order, w, w[:, 0].contiguous(), out)


def assert_fits(result: Compiled, capability: int) -> None:
    assert result.shared <= SHARED_MEMORY[capability]
    assert result.registers * result.threads <= 65536


@pytest.mark.parametrize("kernel", KERNELS)
@capabilities
def test_bfloat16(kernel: str, capability: int, tmp_path: Path) -> None:
    """Nothing spills, and products are made by tensor cores."""
    result = compiled(launch(kernel, 8, torch.bfloat16, capability=capability), capability, tmp_path)
    assert_fits(result, capability)
    assert result.stack == 0
    instruction = TENSOR_CORES.get(kernel, {}).get(capability)
    assert ("mma" in result.ptx) == (instruction is not None)
    assert instruction is None or instruction in result.ptx
    assert ("cp.async.ca.shared.global" in result.ptx) == kernel.startswith("conv_mix")  # copies of two taps


@pytest.mark.parametrize("size", [4, 8, 16])
@pytest.mark.parametrize("kernel", [name for name in TENSOR_CORES if "wgmma" in TENSOR_CORES[name][90]])
def test_products_keep_their_registers(kernel: str, size: int, tmp_path: Path) -> None:
    """Until they have ended: the mix reads its left matrix from registers."""
    compiled(launch(kernel, size, torch.bfloat16, capability=90), 90, tmp_path)
    sass = disassembled(tmp_path / "kernel.cubin")
    assert "HGMMA" in sass
    assert overwritten(sass) == []


PRODUCT = "/*0010*/ HGMMA.64x8x16.F32.BF16 R24, R56, gdesc[UR4], RZ, !UPT, gsb0 ;"
WAIT = "/*0020*/ WARPGROUP.DEPBAR.LE gsb0, {} ;"


@pytest.mark.parametrize(
    ("write", "seen"),
    [
        ("MOV R59, R3", True),
        ("@P0 MOV R56, R3", True),
        ("@!PT LDS.64 R55, [R3]", True),
        ("HGMMA.64x16x16.F32.BF16 R52, gdesc[UR8], R52, gsb0", True),
        ("HGMMA.64x8x16.F32.BF16 R52, gdesc[UR8], R52, gsb0", False),
        ("LDS.64 R54, [R3]", False),
        ("MOV R60, R56", False),
        ("STG.E desc[UR8][R56.64], R57", False),
    ],
)
def test_a_register_that_is_overwritten_is_seen(write: str, seen: bool) -> None:
    write = f"/*0030*/ {write} ;"
    assert overwritten("\n".join((PRODUCT, write, WAIT.format("0x0")))) == [write] * seen
    assert overwritten("\n".join((PRODUCT, WAIT.format("0x0"), write))) == []
    assert overwritten("\n".join((PRODUCT, PRODUCT, WAIT.format("0x1"), write))) == [write] * seen


@pytest.mark.parametrize("kernel", KERNELS)
def test_amd(kernel: str) -> None:
    """For the MI300 (CDNA 3): nothing spills, and products are made by its matrix cores."""
    assembly, spilt = compiled_for_amd(launch(kernel, 8, torch.bfloat16), "gfx942")
    assert spilt == 0
    assert ("v_mfma" in assembly) == (kernel in TENSOR_CORES)


@capabilities
def test_int8(capability: int, tmp_path: Path) -> None:
    """Rounded as it is stored."""
    kernel, values = launch("conv_mix", 8, torch.bfloat16)
    values["y"] = values["y"].to(torch.int8)
    result = compiled((kernel, values), capability, tmp_path)
    assert_fits(result, capability)
    assert result.stack == 0


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize(
    "kernel", ["conv_mix", "conv_mix, pool", "conv_mix, pool, no codes", "group_mix", "unmix_linear"]
)
@capabilities
def test_other_fast_group_sizes(kernel: str, size: int, capability: int, tmp_path: Path) -> None:
    result = compiled(launch(kernel, size, torch.float16, capability=capability), capability, tmp_path)
    assert_fits(result, capability)
    assert result.stack == 0


@pytest.mark.parametrize("kernel", KERNELS)
@capabilities
def test_float32(kernel: str, capability: int, tmp_path: Path) -> None:
    """Multiplied exactly, without tensor cores, and nothing spills."""
    result = compiled(launch(kernel, 8, torch.float32), capability, tmp_path)
    assert_fits(result, capability)
    assert result.stack == 0
    assert "mma" not in result.ptx


@pytest.mark.parametrize("kernel", ["conv_mix", "unmix_linear"])
@capabilities
def test_tf32(kernel: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensor cores where PyTorch allows it."""
    monkeypatch.setattr(globals()[kernel], "precision", lambda *_: "tf32")
    result = compiled(launch(kernel, 8, torch.float32), capability, tmp_path)
    assert_fits(result, capability)
    assert "tf32" in result.ptx


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("size", "dtype", "last", "pixels", "channels"),
    [
        (3, torch.float64, False, 13, 5),
        (64, torch.bfloat16, False, 30, 7),
        (2, torch.float32, True, 1, 1),  # Triton compiles an argument that is 1 into the kernel
    ],
    ids=str,
)
def test_other_shapes(
    kernel: str, size: int, dtype: torch.dtype, last: bool, pixels: int, channels: int, tmp_path: Path
) -> None:
    """The general path: it may spill."""
    assert_fits(compiled(launch(kernel, size, dtype, last, pixels, channels), 90, tmp_path), 90)


def test_long_rows(tmp_path: Path) -> None:
    """Offsets have 64 bits where an image has 2^31 elements or more, 32 elsewhere."""
    key = key_for(4, 2)
    for n, bits in ((2**31 + 8, 64), (4096, 32)):
        x = torch.empty(1).expand(4, n)
        values = launch_of(group_mix.group_mix, x, key.coeffs, key.order, x, transpose=False)
        assert values[1]["INDEX"].primitive_bitwidth == bits
        assert_fits(compiled(values, 90, tmp_path), 90)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", range(1, 65))
def test_tiles(size: int, dtype: torch.dtype) -> None:
    """Powers of two that Triton takes, no larger than they need be, and with their sums within a thread's registers."""
    words = 2 if dtype == torch.float64 else 1
    for n in (1, 2, 16, 17, 80, 12544):
        line = tiles.line(size, n, dtype)
        assert line.block == tiles.power_of_two(line.block) <= tiles.power_of_two(n)
        assert words * line.block * size <= tiles.REGISTERS * 32 * line.warps
        for columns in (1, 16, 33, 64, 512):
            assert_product(tiles.product(size, n, columns, 147, dtype), size, columns, dtype)
            for pools in (False, True):
                assert_product(tiles.convolution(size, n, columns, 147, dtype, pools), size, columns, dtype)


@pytest.mark.parametrize("size", range(2, 17))
@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("warpgroups", [False, True])
def test_walks(size: int, warpgroups: bool, codes: bool) -> None:
    """Their sums are within a thread's registers, mixed rows are full, and there are enough of them."""
    for groups, height, width, channels in itertools.product((1, 3, 600), (1, 2, 56), (1, 2, 3, 56, 112), (1, 33, 128)):
        walk = tiles.walk(size, groups, height, width, channels, codes, warpgroups)
        images = walk.strips * tiles.power_of_two(size)
        assert images >= tiles.ROW
        assert 4 <= walk.width == tiles.power_of_two(walk.width)
        assert walk.width * images * walk.columns <= tiles.REGISTERS // 2 * 32 * walk.warps
        assert walk.results == walk.strips * (walk.width // 2 - 1) > 0
        assert 1 <= walk.rows <= height
        side_by_side = groups * -(-width // walk.results) * -(-channels // walk.columns)
        assert side_by_side * -(-height // walk.rows) >= min(tiles.BUSY, side_by_side * height) / 2


def assert_product(product: tiles.Product, size: int, columns: int, dtype: torch.dtype) -> None:
    rows = product.items * tiles.power_of_two(size)
    for side, needed in ((product.columns, columns), (product.depth, 147)):
        assert tiles.LEAST_DOT <= side == tiles.power_of_two(side)
        assert side <= max(tiles.LEAST_DOT, tiles.power_of_two(needed))
    assert product.items == tiles.power_of_two(product.items)
    assert rows % tiles.ROW == 0 or size < tiles.ROW
    assert tiles.words(dtype) * max(tiles.ROW, rows) * product.columns <= tiles.REGISTERS // 2 * 32 * product.warps
