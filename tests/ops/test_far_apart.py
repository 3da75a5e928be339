"""Tensors of few elements that lie 2^31 and more apart: offsets within an image, or a weight, take 64 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import key_for
from torch import Tensor

from facemix_ops import conv_mix, unmix_linear

FAR = 2**30 + 8  # elements; twice this is past what 32 bits hold


@pytest.fixture
def memory(tmp_path: Path) -> Tensor:
    """float16; a file with holes, of which only what is written to exists."""
    return torch.from_file(str(tmp_path / "memory"), shared=True, size=2 * FAR + 4096, dtype=torch.float16)


def scattered(memory: Tensor, values: Tensor, dim: int) -> Tensor:
    """``values`` with FAR elements from one index of ``dim`` to the next, the others as they were."""
    strides = list(values.contiguous().stride())
    strides[dim] = FAR
    return memory.as_strided(values.shape, strides).copy_(values)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 5])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)])
def test_x_of_conv_mix(memory: Tensor, dim: int, kernel: int, pool: tuple[int, int, int] | None) -> None:
    """Channels, rows or columns."""
    shape = [4, 2, 2, 2]
    shape[dim] = 3
    values, w, key = torch.randn(shape).half(), torch.randn(5, shape[1], kernel, kernel).half(), key_for(4, 2)
    x, options = scattered(memory, values, dim), {"padding": kernel // 2, "pool": pool}
    assert torch.equal(conv_mix(x, w, None, key, **options), conv_mix(values, w, None, key, **options))


@pytest.mark.parametrize("dim", [0, 1, 2, 3])
@pytest.mark.parametrize("c", [3, 5])
def test_weight_of_conv_mix(memory: Tensor, dim: int, c: int) -> None:
    shape = [3, c, 3, 3]
    shape[dim] = 3
    x, values, key = torch.randn(4, shape[1], 4, 5).half(), torch.randn(shape).half(), key_for(4, 2)
    assert torch.equal(conv_mix(x, scattered(memory, values, dim), None, key), conv_mix(x, values, None, key))


@pytest.mark.parametrize("dim", [0, 1])
def test_weight_of_unmix_linear(memory: Tensor, dim: int) -> None:
    y, values, key = torch.randn(4, 3).half(), torch.randn(3, 3).half(), key_for(4, 2)
    assert torch.equal(unmix_linear(y, key, scattered(memory, values, dim)), unmix_linear(y, key, values))
