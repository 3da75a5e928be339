"""Arguments for every registered op: torch.library.opcheck takes them on the CPU and on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from cases import LAYOUTS, key_for


def grad(*shape: int, dtype: torch.dtype = torch.float64, layout: str = "contiguous") -> torch.Tensor:
    x = torch.randn(shape, dtype=dtype)
    return (LAYOUTS[layout](x) if layout != "contiguous" else x).requires_grad_()


def samples(op: str) -> list[tuple[Any, ...]]:
    """Arguments for an op: with and without gradients, pools, layouts and options."""
    key = key_for(4, 2)
    k = (key.coeffs, key.order)
    pool, none, relu, leaky = [3, 3, 2, 2, 1, 1], (0, 1.0, None), (1, 0.0, None), (2, 0.2, None)
    prelu = (2, 1.0, torch.tensor([0.3], dtype=torch.float64, requires_grad=True))
    w, d = grad(3, 2, 3, 3), grad(3)
    window = ([1, 1], [1, 1], [1, 1])
    strided = ([2, 1], [0, 2], [1, 2])
    codes = torch.randint(0, 2, (4, 2, 5, 6), dtype=torch.uint8) * 128
    last = codes.contiguous(memory_format=torch.channels_last)
    match op:
        case "group_mix" | "group_unmix":
            return [(grad(4, 5), *k), (grad(4, 2, 3, 5, layout="channels_last"), *k), (torch.randn(4, 6)[:, ::2], *k)]
        case "conv_mix":
            return [
                (grad(4, 2, 6, 7), w, d, *k, *window, *prelu, pool, None, True),
                (grad(4, 2, 6, 7, layout="channels_last"), w, None, *k, *strided, *leaky, pool, None, True),
                (grad(4, 2, 6, 7), w, d, *k, *strided, *none, [], None, False),
                (torch.randn(4, 2, 6, 7), w.detach().float(), None, *k, *window, *relu, [], torch.bfloat16, False),
                (torch.randn(4, 2, 6, 7), w.detach().float(), None, *k, *window, *leaky, pool, torch.int8, False),
            ]
        case "conv_mix_vjp":
            kernel, small = ([3, 3], *window), torch.randint(0, 2, (4, 2, 6, 7), dtype=torch.uint8) * 128
            return [
                (grad(4, 2, 6, 7), grad(4, 2, 6, 7), small, *k, *kernel, 0.5, []),
                (grad(4, 3, 6, 7), grad(4, 2, 6, 7, layout="channels_last"), None, *k, *kernel, 0.0, []),
                (torch.randn(4, 2, 3, 4), torch.randn(4, 2, 6, 7), small[:, :, :3, :4] + 4, *k, *kernel, 0.5, pool),
            ]
        case "act_mix":
            return [
                (grad(4, 3, 6, 7), *k, d, grad(3), grad(4, 3, 6, 7), *prelu, pool, None, True),
                (grad(4, 3, 6, 7, layout="channels_last"), *k, None, grad(3), None, *relu, pool, None, True),
                (grad(4, 3, 6, 7), *k, None, None, None, *none, [], None, False),
                (torch.randn(4, 3, 6, 7), *k, None, None, None, *leaky, [], torch.float16, False),
            ]
        case "act_mix_jvp":
            trained = (grad(4, 2, 5, 6), codes, *k, 1.0, 1.0, [], torch.tensor([0.3]))
            return [trained] + [(grad(4, 2, 5, 6, layout=name), c, *k, 1.0, 0.5, []) for name, c in _both(codes, last)]
        case "act_mix_vjp":
            trained = (grad(4, 2, 5, 6), codes, *k, 5, 6, 1.0, 1.0, [], torch.tensor([0.3]))
            return [trained] + [
                (grad(4, 2, 5, 6, layout=name), c, *k, 5, 6, 1.0, 0.5, []) for name, c in _both(codes, last)
            ]
        case "unmix_linear":
            return [(grad(4, 3, 5), *k, grad(6, 5), grad(6)), (grad(4, 5), *k, grad(2, 5), None)]
        case "sample_orthogonal":
            return [(3, 4, 1.0, None), (3, 4, 1.0, torch.tensor(5)), (2, 8, 0.6, torch.tensor(5))]
        case "sample_permutation":
            return [(12, None), (5, torch.tensor(7))]
    return []


def _both(codes: torch.Tensor, last: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    return [("contiguous", codes), ("channels_last", last)]
