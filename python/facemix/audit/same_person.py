"""Whether photographs show the same person: nobody needs to be known for that, nor the network's last layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .matching import correlation
from .scene import Cloud

__all__ = ["same_person"]


def same_person(cloud: Cloud, rows: Tensor, people: Tensor) -> Tensor:
    """How rightly the cloud, which runs its part on what it un-mixed, tells who is the same by how like outputs are.

    Args:
        rows: float32 [n, c, h, w], of any sign: the one in which more is positive, as after a ReLU, is taken.
        people: int64 [n], who is in each, the truth: two people or more, and one of them in two rows or more.

    Returns:
        float64 [m], of each row of somebody who is in others as well: how often one of these is more like it than one
        of another person.
    """
    sign = rows.flatten(1).sum(1).sign()
    outputs = cloud(rows * sign.view(-1, 1, 1, 1)).flatten(1)
    alike = correlation(*[outputs - outputs.mean(0)] * 2)
    same = people[:, None] == people
    shares = []
    for row in range(len(rows)):
        known = same[row].clone()
        known[row] = False
        if known.any():
            shares.append(((alike[row, known][:, None] - alike[row, ~same[row]]).sign() + 1).mean() / 2)
    return torch.stack(shares)
