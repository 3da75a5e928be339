"""What was recovered, against what there was."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

__all__ = ["amari", "correlation", "likeness", "matched", "standard"]


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of every row of `a` [n, ...] with every one of `b` [m, ...]: [n, m]. A constant row has none: 0."""
    return standard(a) @ standard(b).T


def matched(likeness: Tensor) -> tuple[Tensor, Tensor]:
    """The one-to-one matching of sources and what was found with the largest sum (Kuhn 1955).

    Args:
        likeness: [n, m], of n sources and m found; n > m leaves sources without a match.

    Returns:
        int64 [n], which of the found is each source's, -1 where none; float64 [n], how like it is, 0 where none.
    """
    known = likeness.double().cpu()
    sources, found = (torch.from_numpy(index) for index in linear_sum_assignment(known.numpy(), maximize=True))
    which = torch.full((len(known),), -1)
    which[sources] = found
    value = torch.zeros(len(known), dtype=torch.float64)
    value[sources] = known[sources, found]
    return which, value


def likeness(sources: Tensor, found: Tensor) -> Tensor:
    """How like each source [n, ...] its match among what was found [m, ...] is: |correlation|, float64 [n]."""
    return matched(correlation(sources, found).abs())[1]


def amari(product: Tensor) -> float:
    """The Amari index (Amari, Cichocki, Yang 1996) of un-mixing times mixing matrix [n, n], n > 1: 0 where it is a
    permutation with any signs and sizes, at most 1.
    """
    size = product.abs().double()
    tiny = torch.finfo(size.dtype).tiny
    in_rows = size.sum(1) / size.amax(1).clamp(min=tiny) - 1
    in_columns = size.sum(0) / size.amax(0).clamp(min=tiny) - 1
    return float((in_rows.sum() + in_columns.sum()) / (2 * len(size) * (len(size) - 1)))


def standard(rows: Tensor) -> Tensor:
    """Rows [n, ...] without their means, of length 1: float64 [n, t]. A constant row becomes zeros."""
    centred = rows.flatten(1).double()
    centred = centred - centred.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    return centred / norm.clamp(min=1e-12)
