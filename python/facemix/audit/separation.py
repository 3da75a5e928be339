"""Un-mixing the rows of groups, in all the ways that an attacker would try."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .filters import FILTERS, gradient
from .orthogonal import NON_NEGATIVE, SPARSE, rotate
from .scene import Scene

__all__ = ["Separation", "best_way", "fast_ica", "samples_of", "separate", "unmixed"]

SAMPLES = {"quick": 4096, "full": 16384}  # of a row, at most
STEPS = {"quick": 150, "full": 200}
NEGATIVE = 0.01  # share of the energy that may be negative for sources to count as non-negative
AGREE = 0.9  # of starts: in noise they agree by about 0.75


@dataclass(frozen=True)
class Separation:
    """Un-mixing matrices of groups, found in one way.

    Attributes:
        matrix: float32 [g, b, b]: what is found is ``matrix @ rows``.
        ended: bool [g], whether the search came to its end before it ran out of steps.
        sure: bool [g], whether the attacker can see that this is it.
    """

    matrix: Tensor
    ended: Tensor
    sure: Tensor


def separate(scene: Scene, rows: Tensor, *seed: int | str) -> Iterator[tuple[str, Separation]]:
    """Un-mix groups in every way, the most reliable first.

    Args:
        rows: float32 [g, b, c, h, w], the b rows of each of g groups.
        seed: what the random starts and samples are named by.

    Yields:
        The way's name, and what it found.
    """
    steps, generator = STEPS[scene.effort], scene.generator("separate", *seed)
    known = {
        name: samples_of(scene, [filtered(group) for group in rows], generator) for name, filtered in FILTERS.items()
    }
    rotation = rotate(known["raw"].to(scene.device), NON_NEGATIVE, generator, steps=steps)
    sure = (rotation.agreement > AGREE) & (rotation.loss < NEGATIVE)
    yield "orthogonal ICA, non-negative", Separation(rotation.matrix, rotation.ended, sure)
    rotation = rotate(known["gradient"].to(scene.device), SPARSE, generator, steps=steps)
    yield "orthogonal ICA, sparse gradient", Separation(rotation.matrix, rotation.ended, rotation.agreement > AGREE)
    for name, samples in known.items():
        yield f"FastICA, {name}", fast_ica(samples, scene.seed_of("separate", *seed), 5 * steps)  # which are cheap


def best_way(rows: Tensor, ways: Iterable[tuple[str, Separation]]) -> tuple[str, Separation]:
    """The way to go by, chosen without the truth: the first that is sure of most groups; where none is, the one whose
    outputs' gradients are the furthest from a normal distribution (negentropy: Hyvarinen and Oja 2000).

    Args:
        rows: see `separate`.
        ways: what `separate` yields; nothing is tried after a way that is sure.
    """
    tried = []
    for name, separation in ways:
        if separation.sure.float().mean() > 0.5:
            return name, separation
        tried.append((name, separation))
    return max(tried, key=lambda way: _negentropy(rows, way[1].matrix))


def unmixed(scene: Scene, rows: Tensor, *seed: int | str) -> Tensor:
    """Rows [b, c, h, w] that are an orthogonal matrix times sources, un-mixed in the best of all ways; one alone is a
    source already.
    """
    if len(rows) == 1:
        return rows
    _, found = best_way(rows[None], separate(scene, rows[None], *seed))
    return (found.matrix[0] @ rows.flatten(1)).view_as(rows)


def samples_of(scene: Scene, groups: list[Tensor], generator: torch.Generator) -> Tensor:
    """Samples [g, b, t] of filtered rows [b, t]: all, or a random part."""
    samples, limit = torch.stack(groups), SAMPLES[scene.effort]
    if samples.shape[2] > limit:
        samples = samples[:, :, torch.randperm(samples.shape[2], generator=generator)[:limit]]
    return samples


def fast_ica(samples: Tensor, seed: int, steps: int) -> Separation:
    """Hyvarinen's algorithm, by scikit-learn. It cannot tell whether it is right: never sure."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    matrices, ended = [], []
    for group in samples.double().cpu().numpy():
        ica = FastICA(whiten="unit-variance", random_state=seed % 2**32, max_iter=steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # counted below
            warnings.simplefilter("ignore", UserWarning)  # of rows that depend on each other
            matrix = ica.fit(group.T).components_
        finite = bool(np.isfinite(matrix).all())
        matrices.append(matrix if finite else np.eye(len(group)))
        ended.append(finite and ica.n_iter_ < ica.max_iter)
    return Separation(torch.from_numpy(np.stack(matrices)).float(), torch.tensor(ended), torch.zeros(len(ended)).bool())


def _negentropy(rows: Tensor, matrix: Tensor) -> float:
    samples = torch.stack([gradient((m @ r.flatten(1)).view_as(r)) for m, r in zip(matrix, rows, strict=True)])
    z = samples / samples.square().mean(2, keepdim=True).sqrt().clamp(min=1e-12)
    normal = (2 / torch.pi) ** 0.5  # the mean of |z| of a normal distribution
    return float((z.abs().mean(2) - normal).square().mean())
