"""What an attacker expects of rows before it receives any."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Moments"]

TINY = 1e-12  # mean square where all rows are zero


class Moments:
    """The second moments of rows, M = E[x x'], shrunk towards a multiple of the identity by as much as is best for so
    many of them (Ledoit and Wolf 2004): rows that are fewer than their values leave most directions unseen, which does
    not mean that others have nothing there. What is decomposed is as large as there are rows.

    Args:
        rows: [n, ...], n >= 1, of the attacker's own.

    Attributes:
        mean: mean square of a value.
    """

    def __init__(self, rows: Tensor) -> None:
        x = rows.flatten(1).double()
        count, size = x.shape
        products = x @ x.T / count
        values, vectors = torch.linalg.eigh(products)
        self.mean = max(float(values.sum() / size), TINY)
        squares = float(values.square().sum())
        spread = squares / size - self.mean**2  # of M around its mean
        shrunk = 1.0
        if count > 1:
            error = (count * float(products.diagonal().square().sum()) - squares) / ((count - 1) * size)  # by its terms
            shrunk = min(max(error, 0.0) / max(spread, TINY**2), 1.0)
        seen = values > count * torch.finfo(x.dtype).eps * values[-1]
        self._axes = x.T @ (vectors[:, seen] / (count * values[seen]).sqrt())
        self._unseen = shrunk * torch.tensor(self.mean, dtype=x.dtype)
        self._seen = (1 - shrunk) * values[seen] + self._unseen

    def filtered(self, rows: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """Rows [m, ...] times `gain(M)`, given as a function of eigenvalues: float64 [m, t]."""
        x, rest = rows.flatten(1).double(), gain(self._unseen)
        return rest * x + (x @ self._axes * (gain(self._seen) - rest)) @ self._axes.T
