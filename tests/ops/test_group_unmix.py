"""group_unmix: inverse and adjoint of group_mix."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, LAYOUTS, check_out, key_for
from tolerances import assert_near, assert_same_product
from torch import Tensor

from facemix_ops import group_mix, group_unmix, reference

TRAILING = [(), (0,), (1,), (3,), (17,), (1025,), (5, 7), (3, 5, 7), (2, 3, 1, 5)]


def check(y: Tensor, size: int) -> Tensor:
    """group_unmix, fresh and into a guarded buffer, against the reference in float64."""
    key = key_for(y.shape[0], size)
    result = check_out(group_unmix, y, key)
    assert result.dtype == y.dtype
    assert_near(result, reference.group_unmix(y.double(), key), reference.group_unmix(y, key))
    return result


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
def test_layouts(layout: str) -> None:
    result = check(LAYOUTS[layout](torch.randn(6, 3, 5, 7)), 3)
    if layout == "channels_last":
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [2, 3, 8, 13, 64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_inverse(size: int, layout: str) -> None:
    """unmix(mix(x)) == x == mix(unmix(x)), across layouts."""
    x, key = torch.randn(2 * size, 3, 5, 7, dtype=torch.float64), key_for(2 * size, size)
    assert_near(group_unmix(LAYOUTS[layout](group_mix(x, key)), key), x)
    assert_near(group_mix(LAYOUTS[layout](group_unmix(x, key)), key), x)


@pytest.mark.parametrize("size", [2, 3, 8, 13, 64])
def test_adjoint(size: int) -> None:
    """<mix(x), y> == <x, unmix(y)>."""
    key = key_for(2 * size, size)
    x, y = torch.randn(2, 2 * size, 11, dtype=torch.float64)
    assert_same_product((group_mix(x, key), y), (x, group_unmix(y, key)))


def test_wrong_key_does_not_unmix() -> None:
    x = torch.randn(8, 5)
    assert not torch.allclose(group_unmix(group_mix(x, key_for(8, 4)), key_for(8, 4, seed=1)), x, atol=1e-2)
