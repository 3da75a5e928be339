"""A linear read-out: what it says about a mixture is the mixture of what it says about each image, so the mix does not
hinder it."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import Moments
from .rehearsal import Rows

__all__ = ["Readout", "people_readout"]

RIDGE = 0.01  # of the mean square of the rows. From 0.001 to 0.1 it makes no difference on ORL
AT_ONCE = 64  # rows in double precision
TINY = 1e-12  # where all rows are zero


class Readout:
    """Ridge regression without intercept, from received rows to targets.

    Rows to learn from are best without the noise that lies on those to read: beneath it, the regression learns what one
    draw of it happens to be. Its second moments are enough: where rows are whitened by them, a ridge of 1 a row is what
    noise adds to the products of their columns on average.

    Args:
        rows: float32 [b, ...], to learn from. All arithmetic is done where they are.
        targets: float [b, P].
        noise: see `Rows`; none where there is none, or the rows are beneath it.
    """

    def __init__(self, rows: Tensor, targets: Tensor, noise: Tensor | None = None) -> None:
        if noise is None or not len(noise):
            self._matrix = _ridge(rows.flatten(1), targets, 0.0)
        else:
            white, whitened = Moments(noise), torch.empty_like(rows.flatten(1))
            for part, into in zip(rows.split(AT_ONCE), whitened.split(AT_ONCE), strict=True):
                into.copy_(white.filtered(part, torch.rsqrt))
            matrix = _ridge(whitened, targets, len(rows))
            self._matrix = white.filtered(matrix.T, torch.rsqrt).T.to(rows)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 [b, ...] -> float32 [b, P], on the CPU."""
        return (rows.to(self._matrix).flatten(1) @ self._matrix).cpu()


def _ridge(x: Tensor, targets: Tensor, added: float) -> Tensor:
    """The matrix [t, P] of rows x [b, t]. The ridge is RIDGE, and what is `added`."""
    gram = (x @ x.T).double()  # [b, b]: there are fewer rows than values in each
    gram.diagonal().add_((RIDGE * gram.diagonal().mean()).clamp(min=TINY) + added)
    return x.T @ torch.linalg.solve(gram, targets.to(gram)).to(x)


def people_readout(rows: Rows, person: Tensor, device: torch.device) -> Readout:
    """How much of each person is in a row: near the sum of the weights of the person's photographs, near 0 where there
    is none.

    Args:
        rows: the attacker's own, whose weights it knows.
        person: bool [N, P], whether a photograph shows a person.
        device: where to compute.
    """
    parts = torch.einsum("bs,bsp->bp", rows.weights, person.double()[rows.members])
    return Readout(rows.received.to(device), parts.to(device), rows.noise.to(device))
