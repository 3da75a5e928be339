"""conv_mix to int8: the rounded reference in float64, ties, saturation, what is not finite, every way to the store."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import LAYOUTS, check_out, integers, key_for
from tolerances import assert_near
from torch import Tensor

from facemix_ops import MixKey, act_mix, backend, conv_mix, reference
from facemix_ops.native import C

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(params=C.available_capabilities())
def capability(request: pytest.FixtureRequest) -> Any:
    """Every instruction set of this CPU, one after the other."""
    before = C.capability()
    C.use_capability(request.param)
    yield request.param
    C.use_capability(before)


def check(x: Tensor, w: Tensor, b: Tensor | None, key: MixKey, **options: Any) -> Tensor:
    """conv_mix to int8, fresh and into a guarded buffer: the nearest whole numbers, and more than a few of them."""
    result = check_out(conv_mix, x, w, b, key, out_dtype=torch.int8, **options)
    rounded = x.dtype if backend.WISH == "triton" else torch.float32  # before the mix; CPU kernels do not round there
    floats = [[None if t is None else t.to(dtype) for t in (x, w, b)] for dtype in (torch.float64, rounded)]
    expected, plain = (reference.conv_mix(*tensors, key, **options) for tensors in floats)
    assert result.dtype == torch.int8
    assert_near(result, expected, plain)
    return result


def operands(batch: int, c: int, oc: int, hw: tuple[int, int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """x, weight and bias; the results spread over all of int8."""
    return [torch.randn(batch, c, *hw).to(dtype), (12 * torch.randn(oc, c, 3, 3)).to(dtype), torch.randn(oc).to(dtype)]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 13, 16, 33, 64])
def test_group_sizes(size: int, capability: str) -> None:
    tensors, key = operands(2 * size, 2, 5, (7, 6)), key_for(2 * size, size)
    check(*tensors, key, padding=1)
    check(*tensors, key, padding=1, activation="relu", pool=2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dtypes_and_layouts(dtype: torch.dtype, layout: str, capability: str) -> None:
    x, w, b = operands(8, 3, 17, (9, 10), dtype)
    x, key = LAYOUTS[layout](x), key_for(8, 8)
    result = check(x, w, b, key, stride=2, padding=1)
    assert result.is_contiguous(
        memory_format=torch.channels_last if layout.startswith("channels_last") else torch.contiguous_format
    )
    check(x, w, None, key, activation=("leaky_relu", -0.5), pool=(3, 2, 1))


@pytest.mark.parametrize("oc", [1, 7, 16, 33, 64, 65])
@pytest.mark.parametrize("width", [1, 5, 15, 16, 17, 47, 63, 64, 65])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sizes(oc: int, width: int, layout: str) -> None:
    """Around vectors and the lines of the cache."""
    x, w, b = operands(4, 3, oc, (3, width))
    check(LAYOUTS[layout](x), w, b, key_for(4, 4), padding=1)
    check(LAYOUTS[layout](x), w, b, key_for(4, 2), padding=1, activation="relu", pool=(2, 1, 1))


@pytest.mark.parametrize("width", [63, 64])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_large_results(width: int, layout: str, capability: str) -> None:
    """Above 4 MiB: past the caches."""
    x = LAYOUTS[layout](torch.randn(8, 1, 136, width))
    w, key = 40 * torch.randn(64, 1, 1, 1), key_for(8, 8)
    assert check(x, w, None, key).nbytes > 4 << 20


def test_ties_go_to_the_even_one(capability: str) -> None:
    """Halves of whole numbers, exact in every step."""
    x, key = integers(4, 1, 8, 9, low=-9, high=10, dtype=torch.float32), key_for(4, 2)
    halves = torch.tensor([[0.5, 0.5], [0.5, -0.5]], dtype=torch.float64).repeat(2, 1, 1)
    key = MixKey._wrap(halves, key.order)
    exact = reference.conv_mix(x, torch.ones(1, 1, 1, 1), None, key)
    assert ((exact % 1) == 0.5).sum() > 50
    assert torch.equal(
        conv_mix(x, torch.ones(1, 1, 1, 1), None, key, out_dtype=torch.int8), exact.round().to(torch.int8)
    )


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("pool", [None, 2])
def test_saturation_and_what_is_not_finite(layout: str, pool: Any, capability: str) -> None:
    """What is too large, infinities too, becomes 127 or -127; -128 never occurs; NaN is 0."""
    x, key = integers(4, 1, 18, 20, low=0, high=2, dtype=torch.float32), key_for(4, 2)
    large = torch.tensor([3e38, 1e10, 2.0**31, 200.0, 128.0, 127.4, -127.4, -128.0, -200.0, -1e10, -3e38])
    x[0, 0, 0, : len(large)] = large
    x[1, 0, 6, 3], x[2, 0, 8, 4], x[3, 0, 10, 6] = float("nan"), float("inf"), float("-inf")
    w = torch.ones(17, 1, 1, 1)
    result = conv_mix(LAYOUTS[layout](x), w, None, key, pool=pool, out_dtype=torch.int8)
    exact = reference.conv_mix(x, w, None, key, pool=pool)
    assert exact.isnan().any()
    assert exact.isinf().any()
    assert torch.equal(result, reference.whole(exact))
    assert (result[exact.isnan()] == 0).all()
    assert (int(result.min()), int(result.max())) == (-127, 127)


def test_scales_pass_through() -> None:
    """A positive factor of a channel, folded into weight and bias, is a factor of the result."""
    x, w, b = operands(8, 3, 6, (12, 11))
    key, scales = key_for(8, 4), torch.rand(6) + 0.5
    options: dict[str, Any] = {"activation": ("leaky_relu", 0.2), "pool": 2}
    whole = conv_mix(x, w / scales.reshape(-1, 1, 1, 1), b / scales, key, out_dtype=torch.int8, **options)
    floats = conv_mix(x, w, b, key, **options)
    inside = whole.abs() < 127
    error = (whole * scales.reshape(-1, 1, 1) - floats).abs() / scales.reshape(-1, 1, 1)
    assert error[inside].max() < 0.501
    assert inside.float().mean() > 0.5


def test_refused() -> None:
    x, w, _ = operands(4, 2, 3, (6, 6))
    key = key_for(4, 2)
    with pytest.raises(ValueError, match=r"conv_mix: out_dtype=torch.int8 does not support automatic differentiation"):
        conv_mix(x.requires_grad_(), w, None, key, out_dtype=torch.int8)
    with torch.no_grad():
        assert not conv_mix(x, w, None, key, out_dtype=torch.int8).requires_grad
    x = x.detach()
    with pytest.raises(
        TypeError, match=r"conv_mix: out_dtype must be torch.float64 for torch.float64 input, got torch.i"
    ):
        conv_mix(x.double(), w.double(), None, key, out_dtype=torch.int8)
    with pytest.raises(
        TypeError, match=r"conv_mix: out_dtype must be .* or torch.int8 for torch.float32 input, got torch.u"
    ):
        conv_mix(x, w, None, key, out_dtype=torch.uint8)
    with pytest.raises(
        TypeError, match=r"act_mix: out_dtype must be .*torch.float16 for torch.float32 input, got torch.i"
    ):
        act_mix(x, key, out_dtype=torch.int8)
    with pytest.raises(TypeError, match=r"conv_mix: out must have dtype torch.int8, got torch.float32"):
        conv_mix(x, w, None, key, out_dtype=torch.int8, out=torch.empty(4, 3, 4, 4))
    with pytest.raises(TypeError, match=r"conv_mix: x must be float32, float64, bfloat16 or float16, got torch.int8"):
        conv_mix(x.to(torch.int8), w, None, key)


def test_compiled() -> None:
    x, w, b = operands(4, 2, 3, (6, 6))
    key = key_for(4, 2)
    compiled = torch.compile(lambda x: conv_mix(x, w, b, key, out_dtype=torch.int8), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), conv_mix(x, w, b, key, out_dtype=torch.int8))
