"""What an attacker gets when the same photographs are sent again in other groups, which the package's edges do not do
unless others are sent with them: linear algebra on the received rows, and no search.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from .grouping import groups_of_images
from .matching import correlation, likeness
from .outcome import Variant
from .scene import Scene, send

__all__ = ["given_away", "regrouped"]

GROUPS = 8  # of rows, in a request
TIMES = {"quick": 3, "full": 5}
LIKE = 0.9  # |correlation| from which on a photograph counts as recovered
NOISE = 1e-12  # of the squares of what is zero but for rounding


def regrouped(scene: Scene) -> Iterator[Variant]:
    """What comes out of requests of the same photographs, of an edge that mixes. The floor is one of them alone."""
    rows, requests = scene.rows(0, groups_of_images(scene, GROUPS)), []
    for number in range(TIMES[scene.effort]):
        generator = scene.generator("regrouped", number)
        order = torch.randperm(len(rows), generator=generator)
        requests.append(send(scene.edge, scene.victims, rows[order], generator))
    first, size = requests[0], scene.edge.group_size
    if len(first.received) == size:
        return  # one group is the same each time
    received = [request.received.flatten(1).double() for request in requests]
    found = [given_away(*pair, size) for pair in combinations(received, 2)]
    name = f"if photographs were sent {len(requests)} times, in other groups: share that comes out"
    sources = first.truth.sources
    yield Variant(name, _recovered(sources, torch.cat(found)), _recovered(sources, first.received))


def given_away(first: Tensor, second: Tensor, size: int) -> Tensor:
    """What two requests of the same sources give away of single ones.

    With rows R = P X and T = Q X of the same sources X, P and Q orthogonal, T R^+ = Q P^T is known. It is zero between
    rows whose groups have no source in common, which shows the groups where there are about as many as each has rows;
    and the block between two groups has as many singular values that are one as they have sources in common, and else
    zeros. Where that is one source, the right singular vector un-mixes it.

    Args:
        first, second: float64 [b, t], R and T.
        size: of a group.

    Returns:
        float64 [n, t], sources of any sign, some of them several times.
    """
    products = second @ torch.linalg.pinv(first)
    theirs, ours = (_groups(known, size) for known in (products, products.T))
    blocks = products[theirs[:, None, :, None], ours[None, :, None, :]]
    _, strengths, axes = torch.linalg.svd(blocks)
    alone = (strengths > 0.5).sum(2) == 1
    unmixed = first.new_zeros(int(alone.sum()), len(first))
    unmixed.scatter_(1, ours[alone.nonzero()[:, 1]], axes[alone][:, 0])
    return unmixed @ first


def _groups(products: Tensor, size: int) -> Tensor:
    """Which rows of `products` [b, b] are of the same group, by where they are not zero: int64 [b / size, size]."""
    energy = (products.square() + NOISE).log()
    alike, left, groups = correlation(energy, energy), torch.arange(len(products)), []
    while len(left):
        nearest = alike[left[0], left].argsort(descending=True)
        groups.append(left[nearest[:size]])
        left = left[nearest[size:]]
    return torch.stack(groups)


def _recovered(sources: Tensor, found: Tensor) -> float:
    """The share of `sources` that `found` has."""
    return float((likeness(sources, found) > LIKE).double().mean())
