"""The key of one request, in NumPy arrays that are never copied, so that zeroing them leaves nothing."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from . import kernels


class Key:
    """What `facemix_ops.MixKey` is with PyTorch, and the grouping of the images on top.

    Attributes:
        coeffs: float64 [G, S, S]: y[order[g*S+i]] = sum_j coeffs[g,i,j] x[g*S+j].
        order: int64 [B]: where each mixed row is sent.
        rows: int64 [B]: image n lies in row rows[n] of x.
        closed: whether all three were zeroed.
    """

    __slots__ = ("closed", "coeffs", "order", "rows")

    def __init__(self, rows: NDArray[np.int64], size: int, max_coeff: float | None) -> None:
        """For images in `rows`, see `grouping.places`. The rest is drawn from the operating system's CSPRNG."""
        self.coeffs: NDArray[np.float64] = np.empty((len(rows) // size, size, size))
        self.order: NDArray[np.int64] = np.empty(len(rows), np.int64)
        self.rows, self.closed = rows, False
        kernels.sample_orthogonal(self.coeffs, 1.0 if max_coeff is None else max_coeff)
        kernels.sample_permutation(self.order)

    def close(self) -> None:
        """Zero the memory."""
        for secret in (self.coeffs, self.order, self.rows):
            secret.fill(0)
        self.closed = True

    def __del__(self) -> None:
        """For requests that nobody closed."""
        if not getattr(self, "closed", True):
            self.close()

    def __repr__(self) -> str:
        return f"Key(groups={len(self.coeffs)}, group_size={self.coeffs.shape[1]}{', closed' * self.closed})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("Key: a key is private and for one request: it cannot be pickled or copied")
