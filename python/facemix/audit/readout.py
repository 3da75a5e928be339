"""A linear read-out: what it says about a mixture is the mixture of what it says about each image, so the mix does not
hinder it."""

from __future__ import annotations

import torch
from torch import Tensor

from .rehearsal import Rows

__all__ = ["Readout", "people_readout"]

RIDGE = 0.01  # of the mean square of the rows. From 0.001 to 0.1 it makes no difference on ORL
TINY = 1e-12  # where all rows are zero


class Readout:
    """Ridge regression without intercept, from received rows to targets.

    Rows to learn from are best without the noise that lies on those to read. To the products of their columns it would
    add its energy, on the diagonal, and what one draw of it happens to: the ridge has the former, and none of the
    latter.

    Args:
        rows: float32 [b, ...], to learn from. All arithmetic is done where they are.
        targets: float [b, P].
        noise: energy of what hides a value of such rows, over all of them: the sum of `Rows.noise`.
    """

    def __init__(self, rows: Tensor, targets: Tensor, noise: float = 0.0) -> None:
        x = rows.flatten(1)
        gram = (x @ x.T).double()  # [b, b]: there are fewer rows than values in each
        gram.diagonal().add_((RIDGE * gram.diagonal().mean()).clamp(min=TINY) + noise)
        self._matrix = x.T @ torch.linalg.solve(gram, targets.to(gram)).to(x)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 [b, ...] -> float32 [b, P], on the CPU."""
        return (rows.to(self._matrix).flatten(1) @ self._matrix).cpu()


def people_readout(rows: Rows, person: Tensor, device: torch.device) -> Readout:
    """How much of each person is in a row: near the sum of the weights of the person's photographs, near 0 where there
    is none.

    Args:
        rows: the attacker's own, whose weights it knows.
        person: bool [N, P], whether a photograph shows a person.
        device: where to compute.
    """
    parts = torch.einsum("bs,bsp->bp", rows.weights, person.double()[rows.members])
    return Readout(rows.received.to(device), parts.to(device), float(rows.noise.sum()))
