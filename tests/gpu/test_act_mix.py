"""act_mix and the two linear maps that derivatives are made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, integers, key_for
from on_device import check
from tolerances import assert_near

from facemix_ops import reference
from facemix_ops.spec import RELU, Activation

SIZES = [2, 3, 5, 7, 8, 16, 17, 33, 64]
POOLS = [None, 2, (3, 2, 1), (2, 1, 0), ((2, 3), (3, 1), (1, 0)), (1, 2, 0)]
PRELU = ("prelu", torch.tensor([-0.3]))


def affine(channels: int, dtype: torch.dtype) -> dict[str, Any]:
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return {"scale": torch.randn(channels).to(compute), "shift": torch.randn(channels).to(compute)}


@pytest.mark.small
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [4, 5, 8])
def test_small(device: torch.device, layout: str, pool: Any, dtype: torch.dtype, size: int) -> None:
    x = torch.randn(2 * size, 3, 7, 9).to(dtype)
    check("act_mix", device, x, key_for(2 * size, size), layout=layout, activation="relu", pool=pool,
          **affine(3, dtype))  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_group_sizes(device: torch.device, size: int, dtype: torch.dtype, pool: Any) -> None:
    x = torch.randn(2 * size, 5, 6, 7).to(dtype)
    check("act_mix", device, x, key_for(2 * size, size), layout="channels_last", activation="relu", pool=pool)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", ("leaky_relu", 1.5), PRELU], ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_activations_and_pools(device: torch.device, activation: Any, pool: Any, layout: str) -> None:
    x = torch.randn(8, 3, 9, 11)
    check("act_mix", device, x, key_for(8, 4), layout=layout, activation=activation, pool=pool)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device: torch.device, dtype: torch.dtype, layout: str) -> None:
    x = torch.randn(8, 5, 8, 9).to(dtype)
    check("act_mix", device, x, key_for(8, 8), layout=layout, residual=torch.randn(x.shape).to(dtype),
          activation="relu", pool=2, **affine(5, dtype))  # fmt: skip


@pytest.mark.parametrize("shape", [(8, 1, 1, 1), (8, 64, 1, 1), (8, 65, 3, 1), (8, 63, 16, 17), (8, 8, 33, 129)])
def test_shapes(device: torch.device, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for layout in ("contiguous", "channels_last"):
            check("act_mix", device, torch.randn(shape).to(dtype), key_for(8, 8), layout=layout, activation="relu")
            if min(shape[2:]) > 1:
                check("act_mix", device, torch.randn(shape).to(dtype), key_for(8, 8), layout=layout, pool=(3, 2, 1))


@pytest.mark.parametrize("out_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wire_dtypes(device: torch.device, out_dtype: torch.dtype) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(8, 5, 8, 9).to(dtype)
        check("act_mix", device, x, key_for(8, 8), activation="relu", pool=2, out_dtype=out_dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [[], [3, 3, 2, 2, 1, 1]])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_codes(device: torch.device, dtype: torch.dtype, pool: list[int], layout: str) -> None:
    x, key = LAYOUTS[layout](integers(8, 5, 11, 9, low=-1, high=2, dtype=dtype)), key_for(8, 8).to(device)
    options = (None, None, None, RELU, 0.0, None, pool, None, True)
    codes = torch.ops.facemix_ops.act_mix(x.to(device), key.coeffs, key.order, *options)[1]
    assert torch.equal(codes.cpu(), reference.codes(x.double(), Activation(RELU, 0.0), pool))
    assert codes.is_contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [[], [2, 2, 2, 2, 0, 0], [3, 3, 2, 2, 1, 1], [3, 3, 1, 1, 1, 1]])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("size", [3, 8])
def test_linear_maps(device: torch.device, dtype: torch.dtype, pool: list[int], layout: str, size: int) -> None:
    """At random codes, windows that overlap and that reach beyond the image."""
    key, z = key_for(2 * size, size), torch.randn(2 * size, 5, 11, 9)
    codes = reference.codes(torch.randn(z.shape), Activation(), pool)
    y, last = torch.randn(codes.shape), LAYOUTS[layout]
    k, c = key.to(device), last(codes.to(device))
    for name, source, sizes in (("act_mix_jvp", z, ()), ("act_mix_vjp", y, (11, 9))):
        there = last(source.to(device, dtype))
        result = getattr(torch.ops.facemix_ops, name)(there, c, k.coeffs, k.order, *sizes, 1.0, -0.5, pool)
        spec = getattr(reference, name)
        expected = spec(there.cpu().double(), codes, key, *sizes, 1.0, -0.5, pool)
        assert_near(result.cpu(), expected, spec(there, c, k, *sizes, 1.0, -0.5, pool).cpu())
        if layout == "channels_last":
            assert result.is_contiguous(memory_format=torch.channels_last)
