"""Which rows of a shuffled pool belong together."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .filters import gradient, laplacian, log_energy, raw
from .matching import correlation
from .orthogonal import NON_NEGATIVE, rotate
from .scene import Scene
from .separation import fast_ica, samples_of

__all__ = ["affinities", "balanced_clusters", "decisive", "groups_of_images"]

STEPS = {"quick": 200, "full": 400}
STARTS, ROUNDS = 8, 50  # of the clustering


def groups_of_images(scene: Scene, groups: int) -> int:
    """How many groups of images make `groups` groups of rows, at least 1: fewer, where an image is sent in parts."""
    rows = len(scene.edge.clean(torch.from_numpy(np.asarray(scene.victims.images[:1]))))
    return max(1, groups // rows)


def affinities(scene: Scene, rows: Tensor, *seed: int | str) -> dict[str, Tensor]:
    """How much each two rows seem to belong together, by several statistics that know no key.

    "energy": rows of a group mix the same photographs, and so have energy in the same places. "joint": un-mixing the
    whole pool at once, as if it were one group, takes the rows of one group for each photograph: the matrix's support.

    Args:
        rows: float32 [b, c, h, w].
        seed: see `separate`.

    Returns:
        By name: float64 [b, b], more where they belong together.
    """
    generator, steps = scene.generator("affinities", *seed), STEPS[scene.effort]
    pool = samples_of(scene, [raw(rows)], generator)
    rotation = rotate(pool.to(scene.device), NON_NEGATIVE, generator, starts=2, steps=steps)
    whitened = fast_ica(samples_of(scene, [gradient(rows)], generator), scene.seed_of("affinities", *seed), steps)
    return {
        "energy of the gradient": correlation(*[log_energy(gradient(rows))] * 2),
        "energy of the Laplacian": correlation(*[log_energy(laplacian(rows))] * 2),
        "joint FastICA": _support(whitened.matrix[0]),
        "joint, non-negative": _support(rotation.matrix[0]),
    }


def balanced_clusters(affinity: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Clusters of `size` rows each: k-means on `affinity` where the rows are dealt out by a linear assignment, so that
    every cluster gets as many; the best of several starts, each from rows that have little to do with each other.

    Args:
        affinity: float64 [b, b], b a multiple of `size`.

    Returns:
        int64 [b], a number for each cluster.
    """
    between = affinity.clone().fill_diagonal_(0)
    clusters = len(between) // size
    best, most = torch.zeros(len(between), dtype=torch.int64), -torch.inf
    for first in torch.randint(len(between), (STARTS,), generator=generator):
        members = torch.eye(len(between), dtype=between.dtype)[:, _apart(between, int(first), clusters)]
        for _ in range(ROUNDS):
            gain = between @ members / members.sum(0)
            _, slot = linear_sum_assignment(gain.repeat_interleave(size, 1).numpy(), maximize=True)
            before, members = members, torch.eye(clusters, dtype=between.dtype)[torch.from_numpy(slot) // size]
            if torch.equal(before, members):
                break
        inside = float((members.T @ between @ members).trace())
        if inside > most:
            best, most = members.argmax(1), inside
    return best


def decisive(affinity: Tensor, cluster: Tensor) -> float:
    """How far affinities inside of clusters lie above those between them, in standard deviations: what tells, without
    the truth, which statistic to go by.
    """
    same = cluster[:, None] == cluster
    apart = ~torch.eye(len(cluster), dtype=torch.bool)
    inside, between = affinity[same & apart], affinity[~same]
    spread = (inside.var() + between.var()).sqrt().clamp(min=1e-12)
    return float((inside.mean() - between.mean()) / spread)


def _support(matrix: Tensor) -> Tensor:
    """Which rows [b, b] an un-mixing matrix [n, b] uses for the same outputs."""
    weight = matrix.double().abs()
    weight = weight / weight.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
    return weight.T @ weight


def _apart(affinity: Tensor, first: int, count: int) -> list[int]:
    """`count` rows, the first given, each with the least affinity to those before."""
    chosen = [first]
    while len(chosen) < count:
        closest = affinity[:, chosen].amax(1)
        closest[chosen] = torch.inf
        chosen.append(int(closest.argmin()))
    return chosen
