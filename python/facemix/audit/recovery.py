"""From a shuffled pool to its sources: groups first, then each group's key."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .grouping import affinities, balanced_clusters, decisive
from .scene import Scene
from .separation import best_way, separate

__all__ = ["Recovered", "groups_of", "recover"]


@dataclass(frozen=True)
class Recovered:
    """What was made of a pool.

    Attributes:
        rows: float32 [b, c, h, w], in no order, of any sign and size.
        matrix: float64 [b, b], what they are of the pool: ``rows = matrix @ pool``.
        ended: share of the groups in which the search ended before it ran out of steps.
    """

    rows: Tensor
    matrix: Tensor
    ended: float


def groups_of(scene: Scene, pool: Tensor, *seed: int | str) -> Tensor:
    """Groups of rows that seem to belong together, by the statistic that is the most decisive: int64 [g, b / g].

    Args:
        pool: float32 [b, c, h, w].
        seed: see `facemix.audit.separation.separate`.
    """
    size, generator = scene.edge.group_size, scene.generator("groups", *seed)
    if len(pool) == size:
        return torch.arange(size)[None]
    found = [(known, balanced_clusters(known, size, generator)) for known in affinities(scene, pool, *seed).values()]
    _, cluster = max(found, key=lambda pair: decisive(*pair))
    return cluster.argsort(stable=True).view(-1, size)


def recover(scene: Scene, pool: Tensor, *seed: int | str) -> Recovered:
    """Un-shuffle and un-mix.

    Args:
        pool: float32 [b, c, h, w].
        seed: see `facemix.audit.separation.separate`.
    """
    groups = groups_of(scene, pool, *seed)
    rows = pool[groups]
    _, separation = best_way(rows, separate(scene, rows, *seed))
    matrix = torch.zeros(len(pool), len(pool), dtype=torch.float64)
    matrix[torch.arange(len(pool)).view_as(groups)[:, :, None], groups[:, None, :]] = separation.matrix.double()
    return Recovered(
        (separation.matrix @ rows.flatten(2)).reshape(pool.shape), matrix, float(separation.ended.float().mean())
    )
