"""conv_mix: the shapes of the benchmarks and those around tiles, every option, dtype and layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, integers, key_for
from on_device import TF32, check, dtype_of, tf32
from torch import Tensor
from torch.nn import functional as F

from facemix_ops import conv_mix, reference
from facemix_ops.spec import LEAKY, NONE, RELU, Activation

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
PRELU = ("prelu", torch.tensor([-0.3]))
# Those with kernels of their own, then others: kernel, stride, padding.
WINDOWS = [(3, 1, 1), (7, 2, 3), (1, 1, 0), (5, 2, 2), (4, 3, 1), (11, 4, 2)]


def operands(batch: int, c: int, oc: int, kernel: Any, hw: Any, dtype: Any) -> tuple[Tensor, ...]:
    """x, weight and bias."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    dtype = dtype_of(dtype)
    tensors = torch.randn(batch, c, *hw), torch.randn(oc, c, *kernel), torch.randn(oc)
    return tuple(t.to(dtype) for t in tensors)


@pytest.mark.small
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (7, 2, 3), (2, 1, 0)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [*DTYPES, TF32])
@pytest.mark.parametrize("size", [4, 5, 8])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_small(device: torch.device, kernel: int, stride: int, padding: int, layout: str, dtype: Any, size: int,
               pool: Any) -> None:  # fmt: skip
    tensors = operands(2 * size, 3, 9, kernel, (13, 11), dtype)
    check("conv_mix", device, *tensors, key_for(2 * size, size), layout=layout, stride=stride, padding=padding,
          activation="relu", pool=pool, precision=dtype)  # fmt: skip


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("dtype", [torch.float32, TF32, torch.bfloat16])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_group_sizes(device: torch.device, size: int, dtype: Any, pool: Any) -> None:
    tensors = operands(2 * size, 3, 16, 3, (9, 10), dtype)
    check("conv_mix", device, *tensors, key_for(2 * size, size), layout="channels_last", padding=1, pool=pool,
          precision=dtype)  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize("dtype", [*DTYPES, TF32])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_windows(device: torch.device, kernel: int, stride: int, padding: int, dtype: Any, layout: str,
                 pool: Any) -> None:  # fmt: skip
    tensors = operands(8, 3, 64, kernel, (37, 30), dtype)
    check("conv_mix", device, *tensors, key_for(8, 8), layout=layout, stride=stride, padding=padding,
          activation="relu", pool=pool, precision=dtype)  # fmt: skip


@pytest.mark.parametrize("stride", [(1, 2), (3, 1)])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, TF32, torch.bfloat16])
def test_strides_and_dilations(device: torch.device, stride: Any, dilation: Any, dtype: Any) -> None:
    tensors = operands(8, 3, 5, (3, 2), (19, 17), dtype)
    check("conv_mix", device, *tensors, key_for(8, 4), stride=stride, dilation=dilation, padding=(2, 1),
          precision=dtype)  # fmt: skip


@pytest.mark.parametrize("padding", [0, 5, (0, 3), "valid", "same"])
def test_paddings(device: torch.device, padding: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        tensors = operands(8, 3, 4, (2, 4), (11, 12), dtype)
        check("conv_mix", device, *tensors, key_for(8, 8), layout="channels_last", padding=padding)


@pytest.mark.parametrize("c", [1, 2, 3, 4, 5, 8, 16, 17, 64])
@pytest.mark.parametrize("oc", [1, 7, 8, 9, 63, 64, 65, 130])
def test_channels(device: torch.device, c: int, oc: int) -> None:
    """Around the tiles of the matrix instructions."""
    for dtype in (torch.float32, TF32, torch.bfloat16):
        tensors = operands(8, c, oc, 3, (6, 9), dtype)
        check("conv_mix", device, *tensors, key_for(8, 8), layout="channels_last", padding=1, activation="relu",
              precision=dtype)  # fmt: skip


@pytest.mark.parametrize("h", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("w", [1, 2, 15, 16, 17, 31, 32, 33, 63, 65, 129])
def test_image_sizes(device: torch.device, h: int, w: int) -> None:
    """Around the tiles' pixel counts, with windows that end beyond the image."""
    for layout, pool in (("channels_last", None), ("channels_last", (2, 1, 1)), ("contiguous", None)):
        tensors = operands(8, 3, 8, 3, (h, w), torch.bfloat16)
        check("conv_mix", device, *tensors, key_for(8, 8), layout=layout, padding=1, activation="relu", pool=pool)


@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", ("leaky_relu", 1.5), PRELU], ids=str)
@pytest.mark.parametrize("pool", [None, 2, (3, 2, 1), (2, 1, 0), ((2, 3), (3, 1), (1, 0)), (1, 2, 0)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_and_pools(device: torch.device, activation: Any, pool: Any, dtype: torch.dtype) -> None:
    tensors = operands(8, 2, 5, 3, (9, 11), dtype)
    check("conv_mix", device, *tensors, key_for(8, 4), layout="channels_last", padding=1, activation=activation,
          pool=pool)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("width", [9, 15])
def test_layouts(device: torch.device, dtype: torch.dtype, layout: str, size: int, width: int) -> None:
    """With rows of y of whole runs, which are stored at once in NCHW, and without."""
    tensors = operands(8, 3, 16, 3, (8, width), dtype)
    check("conv_mix", device, *tensors, key_for(8, size), layout=layout, padding=1, activation="relu", pool=(3, 2, 1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("out_dtype", [*FLOATS, torch.int8])
def test_wire_dtypes(device: torch.device, dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    for layout in ("contiguous", "channels_last"):
        for options in ({"stride": 2, "padding": (2, 1)}, {"activation": "relu", "pool": 2}):
            tensors = operands(8, 3, 17, (5, 3), (9, 10), dtype)
            check("conv_mix", device, *tensors, key_for(8, 8), layout=layout, out_dtype=out_dtype, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [[], [3, 3, 2, 2, 1, 1], [2, 2, 2, 2, 0, 0]])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("width", [8, 9])
def test_codes(device: torch.device, dtype: torch.dtype, pool: list[int], layout: str, width: int) -> None:
    """What backward remembers, to the bit: the same winner among equals. Whole numbers are exact in every dtype."""
    x = LAYOUTS[layout](integers(8, 3, 11, width, low=-1, high=2, dtype=dtype))
    w, b = integers(16, 3, 3, 3, low=-1, high=2, dtype=dtype), integers(16, low=-1, high=2, dtype=dtype)
    key = key_for(8, 8).to(device)
    options = ([1, 1], [1, 1], [1, 1], RELU, 0.0, None, pool, None, True)
    here = [t.to(device) for t in (x, w, b)]
    codes = torch.ops.facemix_ops.conv_mix(*here, key.coeffs, key.order, *options)[1]
    z = F.conv2d(x.double(), w.double(), b.double(), padding=1)
    assert torch.equal(codes.cpu(), reference.codes(z, Activation(RELU, 0.0), pool))
    assert codes.is_contiguous(
        memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format
    )


# Rows of y under a 3x3 pool of stride 2 that fill the strips of CUDA's walks, by the group's size: wide ones and narrow
# ones, several side by side, and one whose last is not full.
WALKS = [(3, 27), (4, 24), (8, 14), (8, 13), (8, 12), (8, 27), (5, 22), (16, 6), (11, 11)]


@pytest.mark.parametrize(("size", "width"), WALKS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, TF32])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
@pytest.mark.parametrize("padding", [0, 1])
def test_walks(device: torch.device, size: int, width: int, dtype: Any, activation: Any,
               padding: int) -> None:  # fmt: skip
    """Pools whose windows stay in registers; down columns of several tiles, of more channels than a block has."""
    batch, w = size if size > 8 else 2 * size, 2 * width + 1 - 2 * padding
    tensors = operands(batch, 3, 72, 3, (15, w), dtype)
    check("conv_mix", device, *tensors, key_for(batch, size), layout="channels_last", padding=1,
          activation=activation, pool=(3, 2, padding), precision=dtype)  # fmt: skip


@pytest.mark.parametrize(("size", "width"), [(4, 27), (8, 14), (8, 12), (16, 6)])
def test_many_groups(device: torch.device, size: int, width: int) -> None:
    """As many as a large GPU needs to walk where no codes are wanted: two tiles for each block that it runs at once."""
    batch = 256 * size
    tensors = operands(batch, 3, 40, 3, (11, 2 * width - 1), torch.bfloat16)
    check("conv_mix", device, *tensors, key_for(batch, size), layout="channels_last", padding=1, activation="relu",
          pool=(3, 2, 1))  # fmt: skip


@pytest.mark.parametrize(("size", "width"), WALKS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("activation", [Activation(RELU, 0.0), Activation(LEAKY, -0.5), Activation(NONE, 1.0)])
def test_codes_of_walks(device: torch.device, size: int, width: int, dtype: torch.dtype,
                        activation: Activation) -> None:  # fmt: skip
    """The same pools, and what backward remembers of them."""
    x = LAYOUTS["channels_last"](integers(size, 3, 13, 2 * width - 1, low=-1, high=2, dtype=dtype))
    w, b = integers(40, 3, 3, 3, low=-1, high=2, dtype=dtype), integers(40, low=-1, high=2, dtype=dtype)
    key, pool = key_for(size, size), [3, 3, 2, 2, 1, 1]
    options = ([1, 1], [1, 1], [1, 1], activation.kind, activation.slope, None, pool, None, True)
    here = [t.to(device) for t in (x, w, b, key.coeffs, key.order)]
    with tf32(True):
        codes = torch.ops.facemix_ops.conv_mix(*here, *options)[1]
    z = F.conv2d(x.double(), w.double(), b.double(), padding=1)
    assert torch.equal(codes.cpu(), reference.codes(z, activation, pool))


@pytest.mark.parametrize("activation", [Activation(RELU, 0.0), Activation(LEAKY, -0.5), Activation(NONE, 1.0)])
def test_codes_of_walks_among_zeros(device: torch.device, activation: Activation) -> None:
    """What 16 bits make of numbers below them is zero, of either sign: all are equal. The CPU does not round."""
    x = LAYOUTS["channels_last"](integers(8, 3, 13, 27, dtype=torch.float16) * 2.0**-20)
    w, key, pool = torch.full((40, 3, 1, 1), 2.0**-10, dtype=torch.float16), key_for(8, 8), [3, 3, 2, 2, 1, 1]
    options = ([1, 1], [0, 0], [1, 1], activation.kind, activation.slope, None, pool, None, True)
    here = [t.to(device) for t in (x, w, key.coeffs, key.order)]
    codes = torch.ops.facemix_ops.conv_mix(*here[:2], None, *here[2:], *options)[1].cpu()
    expected = [reference.codes(z, activation, pool) for z in (F.conv2d(x, w), F.conv2d(x.float(), w.float()))]
    assert any(torch.equal(codes, each) for each in expected)


def test_float32_without_tf32(device: torch.device) -> None:
    """Where PyTorch forbids TF32, no product is rounded to its 10 bits."""
    key = key_for(8, 8)
    x, w = torch.full((8, 3, 16, 16), 1 + 2**-20), torch.full((16, 3, 3, 3), 1 - 2**-20)
    result = conv_mix(x.to(device), w.to(device), None, key.to(device)).cpu()
    exact = reference.conv_mix(x.double(), w.double(), None, key)
    assert (result - exact).abs().max() < 64 * torch.finfo(torch.float32).eps * exact.abs().max()
    check("conv_mix", device, *operands(16, 3, 64, 7, (40, 40), torch.float32), key_for(16, 8), stride=2, padding=3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_not_finite(device: torch.device, bad: float, pool: Any, activation: Any) -> None:
    """NaN and infinities come out just where the reference has them."""
    x, w = integers(8, 2, 9, 10, dtype=torch.float32), integers(3, 2, 3, 3, low=1, high=3, dtype=torch.float32)
    x[1, 0, 4, 5], x[3, 1, 0, 0] = bad, bad
    key = key_for(8, 4)
    result = conv_mix(x.to(device), w.to(device), None, key.to(device), activation=activation, pool=pool).cpu()
    expected = reference.conv_mix(x.double(), w.double(), None, key, activation=activation, pool=pool)
    torch.testing.assert_close(result.double(), expected, equal_nan=True, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (8, 3, 3, 3)])
def test_least_shapes(device: torch.device, shape: tuple[int, ...]) -> None:
    check("conv_mix", device, torch.randn(shape), torch.randn(4, 3, 3, 3), None, key_for(shape[0], 4))


def test_repeats_bit_for_bit(device: torch.device) -> None:
    x, w, b = (t.to(device) for t in operands(16, 3, 64, 7, (61, 53), torch.bfloat16))
    key = key_for(16, 8).to(device)
    first = conv_mix(x, w, b, key, stride=2, padding=3, activation="relu", pool=(3, 2, 1))
    again = [conv_mix(x, w, b, key, stride=2, padding=3, activation="relu", pool=(3, 2, 1)) for _ in range(5)]
    assert all(torch.equal(first, y) for y in again)
