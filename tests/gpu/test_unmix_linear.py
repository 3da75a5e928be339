"""unmix_linear: the shapes of the benchmarks and those around tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, key_for
from on_device import TF32, check, dtype_of
from torch import Tensor

PRECISIONS = [*DTYPES, TF32]


def operands(y: tuple[int, ...], outputs: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """y, then weight and bias."""
    return tuple(t.to(dtype) for t in (torch.randn(y), torch.randn(outputs, y[-1]), torch.randn(outputs)))


def both(device: torch.device, shape: tuple[int, ...], outputs: int, size: int, dtype: Any) -> None:
    """With a bias and without."""
    y, weight, bias = operands(shape, outputs, dtype_of(dtype))
    check("unmix_linear", device, y, key_for(shape[0], size), weight, bias, precision=dtype)
    check("unmix_linear", device, y, key_for(shape[0], size), weight, precision=dtype)


@pytest.mark.small
@pytest.mark.parametrize("size", [4, 5, 8, 17])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_small(device: torch.device, size: int, dtype: Any) -> None:
    both(device, (2 * size, 24), 5, size, dtype)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 8, 15, 16, 17, 32, 33, 64])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_group_sizes(device: torch.device, size: int, dtype: Any) -> None:
    both(device, (2 * size, 40), 10, size, dtype)


@pytest.mark.parametrize("inputs", [1, 7, 8, 15, 16, 17, 31, 64, 65, 512])
@pytest.mark.parametrize("outputs", [1, 7, 8, 9, 16, 63, 64, 65, 80, 129])
def test_features(device: torch.device, inputs: int, outputs: int) -> None:
    """More outputs than inputs too, where the cheaper order is the other one."""
    for dtype in (torch.float32, TF32, torch.bfloat16):
        both(device, (16, inputs), outputs, 8, dtype)


@pytest.mark.parametrize("batch", [0, 8, 120, 128, 136, 1024, 8192])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_batches(device: torch.device, batch: int, dtype: Any) -> None:
    both(device, (batch, 512), 80, 8, dtype)


@pytest.mark.parametrize("middle", [(1,), (3,), (2, 5), (0,)])
def test_more_dimensions(device: torch.device, middle: tuple[int, ...]) -> None:
    for dtype in PRECISIONS:
        both(device, (16, *middle, 24), 5, 8, dtype)


def test_strided(device: torch.device) -> None:
    """Rows with gaps, a transposed weight, a bias of one value."""
    key = key_for(16, 8)
    check("unmix_linear", device, torch.randn(16, 48)[:, ::2], key, torch.randn(24, 5).T, torch.ones(1).expand(5))
