"""conv_mix against the reference in float64: shapes, windows, activations, dtypes, layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, check_out, integers, key_for
from tolerances import assert_near
from torch import Tensor, nn
from torch.nn import functional as F

from facemix_ops import MixKey, conv_mix, reference
from facemix_ops.spec import LEAKY, NONE, RELU, Activation, parse_activation

PRELU = torch.tensor([-0.3], dtype=torch.float64)
ACTIVATIONS = [None, "relu", "leaky_relu", ("leaky_relu", 1.5), ("leaky_relu", -0.5), ("prelu", PRELU), nn.ReLU()]
POOLS = [2, (3, 2, 1), (2, 1, 0), (3, 1, 1), ((2, 3), (3, 1), (1, 0)), (1, 2, 0), (2, 3, 1), nn.MaxPool2d(3, 2, 1)]


def check(x: Tensor, w: Tensor, b: Tensor | None, size: int, seed: int = 0, **kwargs: Any) -> Tensor:
    """conv_mix, fresh and into a guarded buffer, against the reference in float64 and in the dtype itself."""
    key = key_for(x.shape[0], size, seed)
    result = check_out(conv_mix, x, w, b, key, **kwargs)
    dtype = kwargs.pop("out_dtype", None) or x.dtype
    expected = reference.conv_mix(x.double(), w.double(), None if b is None else b.double(), key, **kwargs)
    plain = None if x.dtype == torch.float64 else reference.conv_mix(x, w, b, key, **kwargs).to(dtype)
    assert result.dtype == dtype
    assert_near(result, expected, plain)
    return result


def operands(batch: int, c: int, oc: int, kernel: tuple[int, int], hw: tuple[int, int],
             dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """x, weight and bias, normal."""
    return (
        torch.randn(batch, c, *hw).to(dtype),
        torch.randn(oc, c, *kernel).to(dtype),
        torch.randn(oc).to(dtype),
    )


@pytest.mark.parametrize("size", [*range(2, 17), 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_sizes(size: int, dtype: torch.dtype) -> None:
    """Every group size, three groups, shuffled; plain and pooled."""
    x, w, b = operands(3 * size, 2, 5, (3, 3), (7, 6), dtype)
    check(x, w, b, size, padding=1)
    check(x, w, b, size, padding=1, activation="relu", pool=2)


@pytest.mark.parametrize("pool", [None, (1, 1, 0)])
def test_columns_as_far_apart_as_there_are_channels(pool: Any) -> None:
    """Every third column of an image in colours, which is no row of interleaved channels."""
    x, w, b = operands(4, 3, 5, (1, 1), (8, 9))
    check(x[..., ::3], w, b, 4, stride=(1, 3), activation="relu", pool=pool)
    check(torch.randn(4, 1, 1, 7)[..., 6::3].expand(-1, 3, -1, -1), w, b, 4)


@pytest.mark.parametrize("kh", range(1, 12))
@pytest.mark.parametrize("kw", range(1, 12))
def test_kernels(kh: int, kw: int) -> None:
    """1x1 to 11x11, square and not, padded and not."""
    x, w, b = operands(4, 3, 6, (kh, kw), (12, 13))
    check(x, w, b, 2, stride=(1 + kh % 2, 1 + kw % 3), padding=(kh // 2, kw // 2))
    check(x, w, None, 4, activation="relu", pool=2 if max(kh, kw) < 11 else None)


@pytest.mark.parametrize("sh", [1, 2, 3, 4])
@pytest.mark.parametrize("sw", [1, 2, 3, 4])
@pytest.mark.parametrize("dilation", [1, 2, (3, 1), (1, 4)])
def test_strides_and_dilations(sh: int, sw: int, dilation: Any) -> None:
    x, w, b = operands(4, 3, 5, (3, 2), (19, 17))
    check(x, w, b, 2, stride=(sh, sw), dilation=dilation, padding=(2, 1))
    check(x, w, b, 2, stride=(sh, sw), dilation=dilation, padding=1, activation="relu", pool=(3, 2, 1))


@pytest.mark.parametrize("padding", [0, 1, 5, (0, 3), (4, 1), [2, 2], "valid", "same"])
@pytest.mark.parametrize(("kernel", "dilation"), [((3, 3), 1), ((2, 3), 1), ((4, 3), 2), ((2, 2), 3), ((5, 1), (2, 1))])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_paddings(padding: Any, kernel: tuple[int, int], dilation: Any, layout: str) -> None:
    """Also wider than the kernel, and "same" with even spans, which pads unevenly."""
    x, w, b = operands(4, 3, 4, kernel, (11, 12))
    result = check(LAYOUTS[layout](x), w, b, 2, padding=padding, dilation=dilation)
    last = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert result.is_contiguous(memory_format=last)


@pytest.mark.parametrize("oc", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_output_channels(oc: int, layout: str, dtype: torch.dtype) -> None:
    """Around the lane counts of every instruction set."""
    x, w, b = operands(6, 2, oc, (3, 3), (6, 9), dtype)
    check(LAYOUTS[layout](x), w, b, 3)
    check(LAYOUTS[layout](x), w, b, 3, padding=1, activation="relu", pool=(3, 2, 1))


@pytest.mark.parametrize("h", [1, 2, 5, 17])
@pytest.mark.parametrize("w", [1, 2, 7, 8, 15, 16, 17, 23, 24, 25, 31, 33, 49])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_image_sizes(h: int, w: int, layout: str) -> None:
    """Around the tiles' pixel counts, and tiny."""
    x, weight, b = operands(4, 3, 3, (3, 3), (h, w))
    check(LAYOUTS[layout](x), weight, b, 4, padding=1)
    check(LAYOUTS[layout](x), weight, b, 2, padding=1, stride=2, activation="relu", pool=(2, 1, 1))


@pytest.mark.parametrize("c", [1, 2, 3, 5, 7, 13, 37])
def test_input_channels(c: int) -> None:
    x, w, b = operands(6, c, 4, (3, 3), (7, 7))
    check(x, w, b, 3, stride=2, padding=1)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("pool", [None, *POOLS], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_activations_and_pools(activation: Any, pool: Any, layout: str) -> None:
    """The pool comes after the activation: a negative slope tells the two orders apart."""
    x, w, b = operands(6, 2, 5, (3, 3), (9, 11), torch.float64)
    x = LAYOUTS[layout](x)
    check(x, w, b, 3, padding=1, activation=activation, pool=pool)
    check(x, w, None, 2, stride=2, activation=activation, pool=pool)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(dtype: torch.dtype, layout: str) -> None:
    """Any strides in; results are channels_last where the input is."""
    x, w, b = operands(6, 3, 5, (3, 3), (8, 9), dtype)
    x = LAYOUTS[layout](x)
    result = check(x, w, b, 3, padding=1, activation="relu", pool=(3, 2, 1))
    check(x, w.transpose(2, 3), b, 3, stride=2)
    if layout in ("contiguous", "channels_last"):
        memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert result.is_contiguous(memory_format=memory_format)


def test_results_lie_as_the_input_does_however_it_is_padded() -> None:
    """PyTorch's padding of an expanded tensor is NCHW."""
    x = LAYOUTS["channels_last"](torch.randn(1, 3, 6, 5)).expand(4, -1, -1, -1)
    y = conv_mix(x, torch.randn(2, 3, 2, 2), None, key_for(4, 2), padding="same")
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_expanded_operands() -> None:
    """Strides of 0: one image for all rows, one plane for all channels, one value for all biases."""
    w = torch.randn(4, 3, 3, 3)
    check(torch.randn(1, 1, 8, 7).expand(4, 3, 8, 7), w, torch.ones(1).expand(4), 2)
    check(torch.randn(4, 3, 1, 7).expand(4, 3, 8, 7), torch.randn(1, 3, 1, 3).expand(4, 3, 3, 3), None, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_dtypes(dtype: torch.dtype, out_dtype: torch.dtype, layout: str) -> None:
    """What goes in, what goes over the wire; float64 keeps to itself."""
    x, w, b = operands(8, 3, 17, (5, 3), (9, 10), dtype)
    x = LAYOUTS[layout](x)
    if (dtype == torch.float64) != (out_dtype == torch.float64):
        with pytest.raises(TypeError, match="conv_mix: out_dtype must be"):
            conv_mix(x, w, b, key_for(8, 8), out_dtype=out_dtype)
        return
    check(x, w, b, 8, stride=2, padding=(2, 1), out_dtype=out_dtype)
    check(x, w, b, 4, activation="relu", pool=2, out_dtype=out_dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    """2048 + 64 ones, which bfloat16 and float16 sums never reach, then a mix by numbers that they hold."""
    x = torch.ones(2, 33, 8, 8, dtype=dtype)
    w = torch.ones(1, 33, 8, 8, dtype=dtype)
    key = MixKey._wrap(torch.tensor([[[0.75, 0.5], [0.5, -0.25]]], dtype=torch.float64), key_for(2, 2).order)
    result = conv_mix(x, w, None, key, out_dtype=torch.float32)
    expected = reference.group_mix(torch.full((2, 1, 1, 1), 33.0 * 64, dtype=torch.float64), key)
    assert_near(result, expected)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (0, 1, 3, 3)])
def test_empty_batch(shape: tuple[int, ...]) -> None:
    key = key_for(0, 4)
    w = torch.randn(2, shape[1], 3, 3)
    assert conv_mix(torch.randn(shape), w, None, key).shape == F.conv2d(torch.randn(shape), w).shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("size", [3, 2, 4, 17, 11, 16, 8])
def test_windows_side_by_side(size: int, layout: str, dtype: torch.dtype) -> None:
    """A 3x3 pool of stride 2 in 16 bits, which kernels have ways of their own for; odd and even rows and columns."""
    batch = size if size > 8 else 2 * size
    for activation, padding, hw in (("relu", 1, (9, 14)), (("leaky_relu", -0.5), 0, (8, 31)), (None, 1, (1, 2))):
        x, w, b = operands(batch, 3, 5, (3, 3), hw, dtype)
        bias, outside = b if activation else None, 2 if hw == (1, 2) else 1
        check(LAYOUTS[layout](x), w, bias, size, padding=outside, activation=activation, pool=(3, 2, padding))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", [Activation(RELU, 0.0), Activation(LEAKY, -0.5), Activation(NONE, 1.0)], ids=str)
@pytest.mark.parametrize("size", [3, 8, 16])
def test_codes_of_windows_side_by_side(size: int, activation: Activation, dtype: torch.dtype) -> None:
    """What backward remembers of them, to the bit: whole numbers are exact, and often equal."""
    x, w = (integers(*shape, low=-1, high=2, dtype=dtype) for shape in ((size, 3, 9, 17), (5, 3, 3, 3)))
    b, key, pool = integers(5, low=-1, high=2, dtype=dtype), key_for(size, size), [3, 3, 2, 2, 1, 1]
    options = ([1, 1], [1, 1], [1, 1], activation.kind, activation.slope, None, pool, None, True)
    codes = torch.ops.facemix_ops.conv_mix(LAYOUTS["channels_last"](x), w, b, key.coeffs, key.order, *options)[1]
    z = F.conv2d(x.double(), w.double(), b.double(), padding=1)
    assert torch.equal(codes, reference.codes(z, activation, pool))


@pytest.mark.parametrize("spec", ["relu", ("leaky_relu", -0.5), None], ids=str)
def test_nan_of_windows_side_by_side(spec: Any) -> None:
    """Of either sign, it is larger than all."""
    key, activation = key_for(8, 8), parse_activation("test", spec)
    options = ([1, 1], [0, 0], [1, 1], activation.kind, activation.slope, None, [3, 3, 2, 2, 1, 1], None, True)
    x, w = integers(8, 2, 9, 17, dtype=torch.float16), torch.tensor([[[[1.0]], [[-1.0]]]], dtype=torch.float16)
    x[1, :, 3, 4], x[2, 0, 5, 12] = float("inf"), float("nan")
    y, _ = torch.ops.facemix_ops.conv_mix(x, w, None, key.coeffs, key.order, *options)
    expected = reference.act_mix(F.conv2d(x.double(), w.double()), key, activation=spec, pool=(3, 2, 1))
    assert torch.equal(y.isnan(), expected.isnan())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("c", "kernel", "options"),
    [
        (3, (7, 7), {"stride": 2, "padding": 3}),  # ResNet's: a run has one element that is not aligned
        (8, (3, 3), {"stride": 1, "padding": 1}),
        (4, (3, 2), {"stride": (1, 2), "padding": (0, 1), "dilation": (1, 2)}),
        (4, (5, 7), {"stride": 2, "padding": 3}),
        (3, (4, 8), {"stride": (2, 8)}),
        (1, (9, 16), {"stride": 4, "padding": 5}),
    ],
)
def test_runs_that_are_aligned(c: int, kernel: tuple[int, int], options: dict[str, Any], dtype: torch.dtype) -> None:
    """Where several elements of a row of a window may be read at once; what lies beside it counts for nothing."""
    x, w, b = operands(8, c, 5, kernel, (15, 40), dtype)
    for layout in ("channels_last", "contiguous"):
        check(LAYOUTS[layout](x), w, b, 8, **options)
    w = integers(5, c, *kernel, low=1, high=3, dtype=dtype)
    x = LAYOUTS["channels_last"](integers(8, c, 15, 40, dtype=dtype))
    x[1, 0, 7, 21] = float("inf")
    expected = reference.conv_mix(x, w, None, key_for(8, 8), **options)
    result = conv_mix(x, w, None, key_for(8, 8), **options)
    assert torch.equal(result.isfinite(), expected.isfinite())
    assert not expected.isfinite().all()


@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_not_finite(pool: Any, bad: float, layout: str, activation: Any, dtype: torch.dtype) -> None:
    """NaN and infinities come out just where plain PyTorch has them, and of the same kind."""
    x, w = integers(6, 2, 9, 10, dtype=dtype), integers(3, 2, 3, 3, low=1, high=3, dtype=dtype)
    x[1, 0, 4, 5], x[3, 1, 0, 0] = bad, bad
    key = key_for(6, 3)
    result = conv_mix(LAYOUTS[layout](x), w, None, key, activation=activation, pool=pool)
    expected = reference.conv_mix(x, w, None, key, activation=activation, pool=pool)
    rtol, atol = (1e-12, 1e-12) if dtype == torch.float64 else (0.02, 1.0)
    torch.testing.assert_close(result, expected, equal_nan=True, rtol=rtol, atol=atol)
    hidden = bad == -float("inf") and (activation == "relu" or pool)  # a maximum passes over it
    assert hidden or not expected.isfinite().all()


def test_repeats_bit_for_bit() -> None:
    x, w, b = operands(8, 3, 17, (5, 5), (23, 29))
    key = key_for(8, 8)
    first = conv_mix(x, w, b, key, activation="relu", pool=2)
    assert all(torch.equal(first, conv_mix(x, w, b, key, activation="relu", pool=2)) for _ in range(5))


def test_big_strip_in_many_row_blocks() -> None:
    """An image too tall for one strip: rows are cut into blocks, windows overlap their borders."""
    x, w, b = operands(2, 3, 3, (7, 7), (150, 61))
    check(x, w, b, 2, stride=2, padding=3, activation="relu", pool=(3, 2, 1))
    check(x, w, b, 2, padding=3, pool=(5, 1, 2))
