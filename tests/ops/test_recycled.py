"""Large results lie in memory that an earlier result gave back, and never in memory that is in use."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from cases import key_for
from torch import Tensor

import facemix_ops
from facemix_ops import conv_mix, group_mix, group_unmix
from facemix_ops.ops.library import LARGE_BYTES

ROW = LARGE_BYTES // 4 // 8 + 7  # eight rows of this many floats are large


def large(offset: int = 0) -> Tensor:
    return torch.randn(8, ROW + offset)


def test_memory_comes_back() -> None:
    """A loop that drops each result walks between two blocks."""
    x, key = large(), key_for(8, 8)
    blocks = set()
    y = group_mix(x, key)
    for _ in range(6):
        y = group_mix(x, key)
        blocks.add(y.data_ptr())
    assert len(blocks) <= 2


def test_memory_in_use_is_left_alone() -> None:
    """Results, views of them, and what autograd keeps stay as they are while later ones are made."""
    x, key = large().requires_grad_(), key_for(8, 8)
    first = group_mix(x, key)
    view, kept = first[3:5], first.detach().clone()
    del first
    squared = group_mix(x, key) ** 2
    for _ in range(4):
        group_unmix(group_mix(large(), key), key)
    gc.collect()
    assert torch.equal(view, kept[3:5])
    squared.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x)  # the mix is orthogonal


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_dtype(layout: torch.memory_format, dtype: torch.dtype) -> None:
    """A recycled result is like any other, whatever lay in its memory before."""
    key = key_for(8, 8)
    group_mix(large(), key)
    x = torch.randn(8, 3, 96, 90).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(40, 3, 3, 3).to(dtype), torch.randn(40).to(dtype)
    y = conv_mix(x, weight, bias, key, padding=1, activation="relu")
    assert y.nbytes >= LARGE_BYTES
    assert y.is_contiguous(memory_format=layout)
    out = torch.empty_like(y)
    assert torch.equal(y, conv_mix(x, weight, bias, key, padding=1, activation="relu", out=out))
    y.add_(1)  # an ordinary tensor
    assert torch.equal(y, out + 1)


@pytest.mark.parametrize("op", ["conv_mix", "act_mix", "group_mix", "group_unmix"])
def test_changed_in_place_under_autograd(op: str) -> None:
    """As small results may be."""
    key, x = key_for(8, 8), torch.randn(8, 16, 96, 90).requires_grad_()
    weight = torch.randn(16, 16, 1, 1)

    def gradient(change: Callable[[Tensor], Tensor]) -> Tensor:
        y = conv_mix(x, weight, None, key) if op == "conv_mix" else getattr(facemix_ops, op)(x, key)
        assert y.nbytes >= LARGE_BYTES
        return torch.autograd.grad(change(y).square().sum(), x)[0]

    torch.testing.assert_close(gradient(Tensor.relu_), gradient(Tensor.relu))


def test_sizes() -> None:
    """Larger, smaller, and much smaller than what was given back."""
    key = key_for(8, 8)
    for offset in (0, 1000, 300, 3 * ROW, 0):
        x = large(offset)
        torch.testing.assert_close(group_unmix(group_mix(x, key), key), x)
