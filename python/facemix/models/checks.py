"""What networks refuse to be built of: model, argument, rule, got."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["check_counts", "check_cut", "check_factor"]


def check_counts(model: str, **counts: Any) -> None:
    """Each is a whole number, 1 or more.

    Raises:
        ValueError: one is not.
    """
    for name, value in counts.items():
        if not isinstance(value, Integral) or int(value) < 1:  # NumPy's are such, too
            raise ValueError(f"{model}: {name} must be a positive whole number, got {value!r}")


def check_factor(model: str, **factors: Any) -> None:
    """Each is a number above 0 that channel counts can be multiplied with.

    Raises:
        ValueError: one is not.
    """
    for name, value in factors.items():
        if not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise ValueError(f"{model}: {name} must be a positive number, got {value!r}")


def check_cut(model: str, **cuts: tuple[Any, tuple[str, ...]]) -> None:
    """Each counts blocks, of those beside it.

    Raises:
        ValueError: one does not.
    """
    for name, (value, blocks) in cuts.items():
        if not isinstance(value, Integral) or not 1 <= int(value) <= len(blocks):
            raise ValueError(f"{model}: {name} must be between 1 and {len(blocks)}, got {value!r}")
