"""What the rows of a request span: the same, whatever orthogonal matrices mix them and however they are shuffled."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["basis", "leftover", "outside"]


def basis(rows: Tensor) -> Tensor:
    """Orthonormal directions that span `rows` [b, ...] of t values each: float64 [t, min(b, t)]."""
    return torch.linalg.qr(rows.flatten(1).double().T).Q


def outside(span: Tensor, rows: Tensor) -> Tensor:
    """The share of the energy of each of `rows` [n, ...] that is not in `span` [t, r]: float64 [n]."""
    rows = rows.flatten(1).double()
    within = (rows @ span).square().sum(1) / rows.square().sum(1).clamp(min=torch.finfo(torch.float64).tiny)
    return (1 - within).clamp(min=0)


def leftover(received: Tensor, known: Tensor) -> Tensor:
    """What the rows of a request hold besides the sources that are known, by R' R = X' X: an orthogonal mix keeps the
    products of the columns of its sources X, so that R' R less those of the known sources is those of the others.

    Args:
        received: float32 [b, c, h, w], R.
        known: float32 [n, c, h, w], sources, n < b.

    Returns:
        float32 [b - n, c, h, w], an orthogonal matrix times the other sources, of which products of columns tell no
        more. Where one source is missing it is that one, of any sign.
    """
    span = basis(torch.cat((received, known)))
    rows, sources = (each.flatten(1).double() @ span for each in (received, known))
    values, directions = torch.linalg.eigh(rows.T @ rows - sources.T @ sources)  # the values rise
    missing = (directions * values.clamp(min=0).sqrt())[:, len(known) - len(received) :].flip(1)
    return (span @ missing).T.float().view(-1, *received.shape[1:])
