"""Whether rows hold a photograph, or the same one as others: by how far that stands out from what rows are like.

Faces have much in common, which tells nothing, and noise is in all directions alike. So a direction counts by how
little is expected in it, and how much of that is noise. Where there is no noise this changes nothing of what is exact:
what lies in a span lies in it however its directions count, and what is equal is equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .moments import Moments
from .noiseless import Noiseless, noise
from .scene import Scene, send
from .span import basis, outside

__all__ = ["Detector", "Mixtures", "Singles", "detectors"]

VALUES = 2**26  # of the attacker's own rows, at most: half a gigabyte in float64
TINY = 1e-10  # of the mean square of a value: what counts as noise where there is none; rounding is 1e-14


#: A function of an eigenvalue.
Gain = Callable[[Tensor], Tensor]


class Detector(Protocol):
    """Compares rows. All that it tells is more the surer it is."""

    def holds(self, rows: Tensor, known: Tensor) -> Tensor:
        """Of each source of `known` [n, ...], as it is without noise, whether it is in `rows` [b, ...]: float64 [n]."""
        ...

    def meet(self, one: Tensor, other: Tensor) -> float:
        """Of the rows of two requests [b, ...], whether a source is in both."""
        ...


class Mixtures:
    """Of rows that mix sources: compares what they span.

    Args:
        moments: of the attacker's own rows, beneath no noise.
        noise: mean square of the noise on a value.
    """

    def __init__(self, moments: Moments, noise: float) -> None:
        self._moments, self._noise = moments, noise + TINY * moments.mean

    def holds(self, rows: Tensor, known: Tensor) -> Tensor:
        """By the share of what is left of a source outside the span, whitened: 0 where it lies in there. Of rows that
        are little but noise that is the matched filter."""
        rows, known = (self._moments.filtered(each, lambda m: (m + self._noise).rsqrt()) for each in (rows, known))
        return -outside(basis(rows), known)

    def meet(self, one: Tensor, other: Tensor) -> float:
        """By the angles between the spans, whitened, where a direction counts by how little of it is noise: minus the
        sum of log(1 - c^2) over their cosines (Bartlett 1938), very large where the spans meet, as one c is 1."""
        first, second = (
            basis(self._moments.filtered(each, lambda m: (m + self._noise).rsqrt())) for each in (one, other)
        )
        clear = self._moments.filtered(second.T, lambda m: m / (m + self._noise))
        cosines = torch.linalg.svdvals(clear @ first)
        return float(-(1 - cosines.square()).clamp(min=torch.finfo(cosines.dtype).eps).log().sum())


class Singles:
    """Of rows that are a source each: by how likely they are if it is so, and if not, as normal numbers. A row is
    y = x + e, x with second moments M and e noise of variance s.

    Args:
        moments, noise: see `Mixtures`.
    """

    def __init__(self, moments: Moments, noise: float) -> None:
        self._moments, self._noise = moments, noise + TINY * moments.mean

    def holds(self, rows: Tensor, known: Tensor) -> Tensor:
        """p(y | x) / p(y) = c exp(-|y - x|^2 / 2s + y' (M + s)^-1 y / 2), the mean over the rows."""
        y, x, s = rows.flatten(1).double(), known.flatten(1).double(), self._noise
        apart = torch.cdist(x, y).square() / s
        return ((self._square(y, lambda m: 1 / (m + s)) - apart) / 2).logsumexp(1)

    def meet(self, one: Tensor, other: Tensor) -> float:
        """p(y, z | the same x) / p(y) p(z) = c exp(y' C z - y' D y / 2 - z' D z / 2), the mean over all pairs; with
        C = M (2M + s)^-1 / s and D = C M (M + s)^-1."""
        y, z, s = one.flatten(1).double(), other.flatten(1).double(), self._noise
        both = y @ self._moments.filtered(z, lambda m: m / (2 * m + s) / s).T
        alone = [self._square(rows, lambda m: m / (2 * m + s) / s * m / (m + s)) / 2 for rows in (y, z)]
        return float((both - alone[0][:, None] - alone[1]).logsumexp((0, 1)))

    def _square(self, rows: Tensor, gain: Gain) -> Tensor:
        """x' gain(M) x, of each row x: [n]."""
        return (rows * self._moments.filtered(rows, gain)).sum(1)


def detectors(scene: Scene, seed: str) -> tuple[Detector, Detector]:
    """Of what the edge sends, and of what one without protection would send. What to expect follows from photographs of
    the attacker's own, at least a group, and from the edge's software.
    """
    edge, own, generator = scene.edge, scene.attacker, scene.generator(seed, "expected")
    values = edge.clean(torch.from_numpy(np.asarray(own.images[:1]))).numel()
    groups = min(len(own), VALUES // values) // edge.group_size
    rows = torch.randperm(len(own), generator=generator)[: max(groups, 1) * edge.group_size]
    request = send(Noiseless(edge), own, rows, generator)
    strength = float(noise(edge, own, rows, generator).square().mean())
    kind = Mixtures if edge.group_size > 1 else Singles
    return kind(Moments(request.received), strength), kind(Moments(request.truth.sources), 0.0)
