"""group_mix against the reference and the formula; what it keeps."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, LAYOUTS, check_out, key_for
from tolerances import assert_near
from torch import Tensor

from facemix_ops import MixKey, group_mix, reference

TRAILING = [(), (0,), (1,), (3,), (16,), (17,), (1023,), (1025,), (5, 7), (2, 0, 3), (3, 5, 7), (2, 3, 1, 5)]


def check(x: Tensor, size: int) -> Tensor:
    """group_mix, fresh and into a guarded buffer, against the reference in float64."""
    key = key_for(x.shape[0], size)
    result = check_out(group_mix, x, key)
    assert result.dtype == x.dtype
    assert_near(result, reference.group_mix(x.double(), key), reference.group_mix(x, key))
    return result


def test_formula() -> None:
    """y[order[g*S+i]] = sum_j A[g,i,j] x[g*S+j], written out."""
    key, x = key_for(6, 3), torch.randn(6, 4, dtype=torch.float64)
    expected = torch.empty_like(x)
    for g in range(2):
        for i in range(3):
            expected[key.order[g * 3 + i]] = sum(key.coeffs[g, i, j] * x[g * 3 + j] for j in range(3))
    assert_near(group_mix(x, key), expected)
    assert_near(reference.group_mix(x, key), expected)


@pytest.mark.parametrize("size", [*range(2, 17), 33, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_sizes(size: int, dtype: torch.dtype) -> None:
    check(torch.randn(3 * size, 37).to(dtype), size)


@pytest.mark.parametrize("trailing", TRAILING, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes(trailing: tuple[int, ...], dtype: torch.dtype) -> None:
    check(torch.randn(10, *trailing).to(dtype), 5)
    check(torch.randn(0, *trailing).to(dtype), 5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(layout: str, dtype: torch.dtype) -> None:
    result = check(LAYOUTS[layout](torch.randn(6, 3, 5, 7).to(dtype)), 3)
    if layout == "channels_last":
        assert result.is_contiguous(memory_format=torch.channels_last)


def test_strided_rows() -> None:
    check(torch.randn(6, 20)[:, ::3], 3)
    check(torch.randn(12, 20)[::2], 3)
    check(torch.randn(20, 6).T, 3)
    check(torch.randn(1, 5).expand(6, 5), 3)
    check(torch.randn(6, 2, 3, 4, 5).transpose(1, 4), 2)


def test_negative_bit() -> None:
    """A lazily negated tensor (the imaginary part of a conjugate) counts as what it stands for."""
    x = torch.randn(4, 6, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    check(x, 2)


def test_norm_and_sum_of_squares_are_kept() -> None:
    """Orthogonal: every group keeps its Gram matrix."""
    key, x = key_for(12, 4), torch.randn(12, 9, dtype=torch.float64)
    y = group_mix(x, key)
    for g in range(3):
        mixed, plain = y[key.order[4 * g : 4 * g + 4]], x[4 * g : 4 * g + 4]
        assert_near(mixed.T @ mixed, plain.T @ plain)


def test_not_finite() -> None:
    """One NaN spoils its own group's column, and nothing else."""
    key, x = key_for(9, 3), torch.randn(9, 5)
    x[4, 2] = float("nan")
    y = group_mix(x, key)
    spoilt = torch.zeros(9, 5, dtype=torch.bool)
    spoilt[key.order[3:6], 2] = True
    assert torch.equal(y.isnan(), spoilt)


def test_identity_key_copies() -> None:
    key, x = MixKey(torch.eye(4).repeat(2, 1, 1)), torch.randn(8, 5)
    assert torch.equal(group_mix(x, key), x)
    backwards = MixKey(torch.eye(4).repeat(2, 1, 1), torch.arange(7, -1, -1))
    assert torch.equal(group_mix(x, backwards), x.flip(0))
