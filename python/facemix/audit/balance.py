"""Success that counts every class alike, however rare it is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["balanced", "by_victim"]


def balanced(hits: Tensor, labels: Tensor) -> Tensor:
    """Values float64 [n] whose mean is the class-balanced success: the mean, over the classes, of the share of hits.

    Args:
        hits: bool [n].
        labels: int [n], of which class each is; at least one.
    """
    _, of, count = labels.unique(return_inverse=True, return_counts=True)
    return hits.double() * len(labels) / (len(count) * count[of])


def by_victim(values: Tensor, victims: Tensor) -> list[float]:
    """One value for each victim, with the same mean as `values` [n].

    Args:
        victims: int64 [n].
    """
    who, of = victims.unique(return_inverse=True)
    total = torch.zeros(len(who), dtype=torch.float64).index_add(0, of, values)
    return (total * len(who) / len(values)).tolist()
