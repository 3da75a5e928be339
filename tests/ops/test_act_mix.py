"""act_mix against the reference in float64; act_mix_jvp and act_mix_vjp against theirs and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, check_out, integers, key_for
from tolerances import assert_near, assert_same_product
from torch import Tensor

from facemix_ops import act_mix, reference
from facemix_ops.spec import parse_activation, parse_pool

ops = torch.ops.facemix_ops
PRELU = torch.tensor([0.3], dtype=torch.float64)
ACTIVATIONS = [None, "relu", ("leaky_relu", 1.5), ("leaky_relu", -0.5), ("prelu", PRELU)]
POOLS = [None, 2, (3, 2, 1), (2, 1, 0), (3, 1, 1), ((2, 3), (3, 1), (1, 0)), (1, 2, 0), (2, 3, 1)]
LINEAR_POOLS = [None, 2, (3, 2, 1), (3, 1, 1), ((2, 3), (3, 2), (1, 0)), (1, 2, 0)]


def affine(x: Tensor, which: str) -> dict[str, Tensor]:
    """scale, shift and residual for ``x``: those whose initials are in ``which``."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    c = x.shape[1]
    every = {
        "scale": torch.randn(c, dtype=dtype),
        "shift": torch.randn(c, dtype=dtype),
        "residual": torch.randn(x.shape).to(x.dtype),
    }
    return {name: every[name] for name, flag in zip(every, "sdr", strict=True) if flag in which}


def check(x: Tensor, size: int, extra: dict[str, Tensor], **kwargs: Any) -> Tensor:
    """act_mix, fresh and into a guarded buffer, against the reference in float64 and in the dtype itself."""
    key = key_for(x.shape[0], size)
    result = check_out(act_mix, x, key, **extra, **kwargs)
    dtype = kwargs.pop("out_dtype", None) or x.dtype
    expected = reference.act_mix(x.double(), key, **{k: v.double() for k, v in extra.items()}, **kwargs)
    plain = None if x.dtype == torch.float64 else reference.act_mix(x, key, **extra, **kwargs).to(dtype)
    assert result.dtype == dtype
    assert_near(result, expected, plain)
    return result


@pytest.mark.parametrize("size", [*range(2, 17), 33, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_group_sizes(size: int, dtype: torch.dtype) -> None:
    x = torch.randn(2 * size, 3, 5, 6, dtype=dtype)
    check(x, size, affine(x, "sdr"), activation="relu")
    check(x, size, affine(x, "sd"), activation="relu", pool=2)


@pytest.mark.parametrize("which", ["", "s", "d", "r", "sd", "sr", "dr", "sdr"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_affine_and_layouts(which: str, layout: str, pool: Any) -> None:
    """Every combination of scale (s), shift (d) and residual (r), for every layout of the input."""
    x = LAYOUTS[layout](torch.randn(6, 5, 7, 9))
    result = check(x, 3, affine(x, which), activation="leaky_relu", pool=pool)
    if layout in ("contiguous", "channels_last"):
        last = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        assert result.is_contiguous(memory_format=last)


@pytest.mark.parametrize("residual", LAYOUTS)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_residual_in_another_layout(layout: str, residual: str) -> None:
    x = LAYOUTS[layout](torch.randn(4, 5, 6, 7))
    check(x, 2, {"residual": LAYOUTS[residual](torch.randn(4, 5, 6, 7))}, activation="relu")


def test_strided_scale_and_shift() -> None:
    x = torch.randn(4, 5, 6, 7)
    check(x, 2, {"scale": torch.randn(10)[::2], "shift": torch.ones(1).expand(5)})


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_activations_and_pools(activation: Any, pool: Any, layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(6, 5, 9, 11, dtype=torch.float64))
    check(x, 3, affine(x, "sd"), activation=activation, pool=pool)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("out_dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_dtypes(dtype: torch.dtype, out_dtype: torch.dtype, layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(8, 9, 6, 7).to(dtype))
    if (dtype == torch.float64) != (out_dtype == torch.float64):
        with pytest.raises(TypeError, match="act_mix: out_dtype must be"):
            act_mix(x, key_for(8, 4), out_dtype=out_dtype)
        return
    check(x, 4, affine(x, "sdr"), activation="relu", out_dtype=out_dtype)
    check(x, 8, affine(x, "sd"), activation="relu", pool=(3, 2, 1), out_dtype=out_dtype)


@pytest.mark.parametrize("c", [1, 3, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("hw", [(1, 1), (1, 13), (17, 1), (3, 5), (23, 31)])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_sizes(c: int, hw: tuple[int, int], layout: str) -> None:
    """Lane counts and tiles, in either layout; 23 x 31 is longer than one tile."""
    x = LAYOUTS[layout](torch.randn(4, c, *hw))
    check(x, 2, affine(x, "sd"), activation="relu")
    check(x, 4, affine(x, "r"), activation="relu", pool=(2, 1, 1))


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (4, 0, 4, 4), (4, 3, 0, 4), (4, 3, 4, 0)])
def test_empty(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert act_mix(x, key_for(shape[0], 2), activation="relu").shape == shape


@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu"])
def test_not_finite(pool: Any, bad: float, layout: str, activation: Any) -> None:
    x = integers(6, 3, 5, 6)
    x[1, 0, 4, 5], x[3, 1, 0, 0] = bad, bad
    key = key_for(6, 3)
    result = act_mix(LAYOUTS[layout](x), key, activation=activation, pool=pool)
    expected = reference.act_mix(x, key, activation=activation, pool=pool)
    torch.testing.assert_close(result, expected, equal_nan=True, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", LINEAR_POOLS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_codes(pool: Any, layout: str, dtype: torch.dtype) -> None:
    """Which window element won and on which side of the activation: as the reference, ties and zeros too."""
    x, key, pool = integers(6, 5, 7, 8, dtype=dtype), key_for(6, 3), parse_pool("", pool)
    relu = parse_activation("", "relu")
    _, codes = ops.act_mix(
        LAYOUTS[layout](x), key.coeffs, key.order, None, None, None, *relu, pool, None, True
    )  # fmt: skip
    assert torch.equal(codes, reference.codes(x, relu, pool))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_codes_of_not_finite(bad: float, layout: str) -> None:
    """Alone, and in whole windows: a code points to an element of its window whatever lies there."""
    x, key, pool = integers(6, 3, 8, 9), key_for(6, 3), parse_pool("", (3, 2, 1))
    x[1, 0, 4, 5], x[2, :, 2:, :5] = bad, bad
    leaky = parse_activation("", "leaky_relu")
    _, codes = ops.act_mix(
        LAYOUTS[layout](x), key.coeffs, key.order, None, None, None, *leaky, pool, None, True
    )  # fmt: skip
    assert torch.equal(codes, reference.codes(x, leaky, pool))


@pytest.mark.parametrize("pool", LINEAR_POOLS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [3, 37])
def test_jvp_and_vjp(pool: Any, layout: str, dtype: torch.dtype, c: int) -> None:
    """Both against the reference, and adjoint to each other: <jvp(z), y> == <z, vjp(y)>."""
    key, parsed = key_for(6, 3), parse_pool("", pool)
    shape = (6, c, 7, 8)
    relu = parse_activation("", "relu")
    codes = reference.codes(torch.randn(shape), relu, parsed)
    z, y = torch.randn(shape).to(dtype), torch.randn(codes.shape).to(dtype)
    dense = LAYOUTS[layout](codes)
    pos, neg = 1.3, -0.01  # not exact in float32
    forward = ops.act_mix_jvp(LAYOUTS[layout](z), dense, key.coeffs, key.order, pos, neg, parsed)
    adjoint = ops.act_mix_vjp(LAYOUTS[layout](y), dense, key.coeffs, key.order, 7, 8, pos, neg, parsed)
    exact_forward = reference.act_mix_jvp(z.double(), codes, key, pos, neg, parsed)
    exact_adjoint = reference.act_mix_vjp(y.double(), codes, key, 7, 8, pos, neg, parsed)
    assert_near(forward, exact_forward, reference.act_mix_jvp(z, codes, key, pos, neg, parsed))
    assert_near(adjoint, exact_adjoint, reference.act_mix_vjp(y, codes, key, 7, 8, pos, neg, parsed))
    assert_same_product((exact_forward, y), (z, exact_adjoint))
    if dtype == torch.float64:
        assert_same_product((forward, y), (z, adjoint))
