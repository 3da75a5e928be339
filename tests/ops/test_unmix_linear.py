"""unmix_linear against the reference in float64: sizes around the lanes, both orders of the two steps."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, check_out, key_for
from tolerances import assert_near
from torch import Tensor
from torch.nn import functional as F

from facemix_ops import group_mix, reference, unmix_linear

SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65]


def check(y: Tensor, w: Tensor, b: Tensor | None, size: int) -> Tensor:
    """unmix_linear, fresh and into a guarded buffer, against the reference in float64."""
    key = key_for(y.shape[0], size)
    result = check_out(unmix_linear, y, key, w, b)
    expected = reference.unmix_linear(y.double(), key, w.double(), None if b is None else b.double())
    assert result.dtype == y.dtype
    assert result.is_contiguous()
    assert_near(result, expected, reference.unmix_linear(y, key, w, b))
    return result


@pytest.mark.parametrize("k", SIZES)
@pytest.mark.parametrize("n", SIZES)
def test_sizes(k: int, n: int) -> None:
    """Fewer outputs than inputs (product first), as many, and more (un-mix first)."""
    check(torch.randn(6, k), torch.randn(n, k), torch.randn(n), 3)
    check(torch.randn(5, k, dtype=torch.float64), torch.randn(n, k, dtype=torch.float64), None, 5)


@pytest.mark.parametrize("size", [*range(2, 17), 33, 64])
@pytest.mark.parametrize("n", [5, 40])
def test_group_sizes(size: int, n: int) -> None:
    check(torch.randn(2 * size, 19), torch.randn(n, 19), torch.randn(n), size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("middle", [(), (1,), (7,), (2, 3), (0,)], ids=str)
@pytest.mark.parametrize("n", [4, 50])
@pytest.mark.parametrize("bias", [True, False])
def test_extra_dimensions(dtype: torch.dtype, middle: tuple[int, ...], n: int, bias: bool) -> None:
    y, w = torch.randn(8, *middle, 37).to(dtype), torch.randn(n, 37).to(dtype)
    check(y, w, torch.randn(n).to(dtype) if bias else None, 4)


@pytest.mark.parametrize(("batch", "k", "n"), [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 0)])
def test_empty(batch: int, k: int, n: int) -> None:
    """Without inputs the bias is left; without rows or outputs nothing is."""
    y, w, b = torch.randn(batch, k), torch.randn(n, k), torch.randn(n)
    assert torch.equal(unmix_linear(y, key_for(batch, 2), w, b), F.linear(y, w, b))


def test_strided_operands() -> None:
    check(torch.randn(6, 40)[:, ::2], torch.randn(20, 9).T, torch.randn(18)[::2], 3)
    check(torch.randn(7, 6, 20).transpose(0, 1), torch.randn(1, 20).expand(5, 20), None, 3)


def test_undoes_the_mix() -> None:
    """With the mixed rows of x it is F.linear(x)."""
    x, key = torch.randn(12, 30, dtype=torch.float64), key_for(12, 4)
    w, b = torch.randn(7, 30, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    assert_near(unmix_linear(group_mix(x, key), key, w, b), F.linear(x, w, b))


@pytest.mark.parametrize("n", [3, 40])
def test_not_finite(n: int) -> None:
    """A NaN in one sent row spoils the images of its own group, and no other."""
    key, y = key_for(9, 3), torch.randn(9, 20)
    y[key.order[4], 7] = float("nan")
    result = unmix_linear(y, key, torch.randn(n, 20))
    assert result[3:6].isnan().all()
    assert result[:3].isfinite().all()
    assert result[6:].isfinite().all()
