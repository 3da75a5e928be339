"""Independent component analysis where the mixing matrix is known to be orthogonal, as the key's matrices are.

FastICA whitens first: it turns the rows so that they are uncorrelated, and then looks among rotations. Photographs of
faces are correlated with each other, so that no un-mixing with uncorrelated outputs is the right one, however long one
looks. But the true matrix is a rotation (or reflection) of the rows *as they are*. So nothing is whitened here: the
un-mixing is looked for among all orthogonal matrices, and its outputs may be as correlated as faces are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NON_NEGATIVE", "SPARSE", "Contrast", "Rotation", "rotate"]

CLOSE, ENDED = 1e-4, 1e-3  # largest change of an entry in a step: to stop; for a search to count as ended
KNEE = 1 / 8  # of SPARSE, in root mean squares: below, values count as zero


@dataclass(frozen=True)
class Contrast:
    """What tells sources from mixtures of them.

    Attributes:
        loss: outputs z [..., t] with a mean square of about 1 -> [...], least at the sources.
        step: minus its gradient by z, plus a multiple of z: the mean square of all outputs is the same for every
            orthogonal matrix, so that the multiple changes no minimum, and makes the steps converge.
    """

    loss: Callable[[Tensor], Tensor]
    step: Callable[[Tensor], Tensor]


#: Sources that are nowhere negative, as after a ReLU, and zero in places (Plumbley 2003: then only a permutation of the
#: sources is nowhere negative). The loss is the energy of the negative values.
NON_NEGATIVE = Contrast(lambda z: z.clamp(max=0).square().mean(-1), torch.abs)

#: Sources that are nearly zero in most places, as the gradients of photographs (the Huber function of the outputs).
SPARSE = Contrast(
    lambda z: torch.where(z.abs() < KNEE, z.square() / (2 * KNEE), z.abs() - KNEE / 2).mean(-1),
    lambda z: z / 2 - z.clamp(-KNEE, KNEE),
)


@dataclass(frozen=True)
class Rotation:
    """Un-mixing matrices of several groups.

    Attributes:
        matrix: float32 [g, b, b], orthogonal: what is found is ``matrix @ rows``.
        loss: float32 [g], of the contrast.
        agreement: float32 [g], 0 to 1, how far other starts of the search found the same rows: near 1, there is
            something to find, and it was found.
        ended: bool [g], whether the search came to its end before it ran out of steps.
    """

    matrix: Tensor
    loss: Tensor
    agreement: Tensor
    ended: Tensor


def rotate(
    samples: Tensor, contrast: Contrast, generator: torch.Generator, *, starts: int = 6, steps: int = 300
) -> Rotation:
    """Look for the orthogonal matrices whose outputs have the least loss.

    Each step takes the orthogonal matrix that is nearest to ``E[step(W x) x^T]`` (a generalised power method: Journee
    et al., JMLR 2010), from several random starts.

    Args:
        samples: float32 [g, b, t], t samples of the b rows of g groups.
        generator: of the starts, on the CPU.
    """
    groups, rows, _ = samples.shape
    scale = samples.square().mean((1, 2), keepdim=True).sqrt()
    x = (samples / scale.clamp(min=1e-12))[:, None]
    w = _orthogonal(torch.randn(groups, starts, rows, rows, generator=generator).to(x.device))
    change = torch.full((groups, starts), torch.inf)
    for _ in range(steps):
        before, w = w, _orthogonal(contrast.step(w @ x) @ x.mT)
        change = (w - before).abs().amax((2, 3))
        if change.max() < CLOSE:
            break
    loss = contrast.loss(w @ x).mean(2)
    best, group = loss.argmin(1), torch.arange(groups)
    found = w[group, best]
    alike = (found[:, None] @ w.mT).abs().amax(3).mean(2)  # of every start with the best one, which is 1
    agreement = alike.sort(1).values[:, (starts - 1) // 2]
    return Rotation(found.cpu(), loss[group, best].cpu(), agreement.cpu(), (change[group, best] < ENDED).cpu())


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrices."""
    u, _, v = torch.linalg.svd(matrix)
    return u @ v
