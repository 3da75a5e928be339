"""Success that counts every class alike, however rare it is."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["by_victim", "class_balanced"]


def class_balanced(hits: Tensor, labels: Tensor) -> Tensor:
    """Values float64 [n] whose mean is the class-balanced success: the mean, over the classes, of the share of hits.

    Each is that mean, and what its hit or miss adds to it (its influence; Hampel 1974), so that an interval of `values`
    is one of the success, in which classes of unequal size do not count as chance.

    Args:
        hits: bool [n].
        labels: int [n], of which class each is; at least one.
    """
    _, of, count = labels.unique(return_inverse=True, return_counts=True)
    share = torch.zeros(len(count), dtype=torch.float64).index_add(0, of, hits.double()) / count
    return share.mean() + (hits.double() - share[of]) * len(labels) / (len(count) * count[of])


def by_victim(values: Tensor, victims: Tensor) -> list[float]:
    """One value for each victim, with the same mean as `values` [n], in the same way.

    Args:
        victims: int64 [n].
    """
    who, of = victims.unique(return_inverse=True)
    mean = values.mean()
    added = torch.zeros(len(who), dtype=torch.float64).index_add(0, of, values - mean)
    return (mean + added * len(who) / len(values)).tolist()
