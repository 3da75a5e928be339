"""What networks refuse to be built of: model, argument, rule, got."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["check_counts", "check_cut", "check_factor"]


def check_counts(model: str, *, least: int = 1, **counts: Any) -> None:
    """Each is a whole number, `least` or more: 1 or 0.

    Raises:
        ValueError: one is not.
    """
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:  # NumPy's, too
            rule = "a positive whole number" if least else "a whole number that is not negative"
            raise ValueError(f"{model}: {name} must be {rule}, got {value!r}")


def check_factor(model: str, **factors: Any) -> None:
    """Each is a number above 0 that channel counts can be multiplied with.

    Raises:
        ValueError: one is not.
    """
    for name, value in factors.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise ValueError(f"{model}: {name} must be a positive number, got {value!r}")


def check_cut(model: str, **cuts: tuple[Any, tuple[str, ...]]) -> None:
    """Each counts blocks, of those beside it.

    Raises:
        ValueError: one does not.
    """
    for name, (value, blocks) in cuts.items():
        if not isinstance(value, Integral) or not 1 <= int(value) <= len(blocks):
            raise ValueError(f"{model}: {name} must be between 1 and {len(blocks)}, got {value!r}")
