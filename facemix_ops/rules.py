"""What the PyTorch face and the edge share: how errors read, the bounds of keys and windows. It imports neither."""

from __future__ import annotations

import math
from typing import Any, NoReturn

MIN_GROUP, MAX_GROUP = 2, 64
MAX_WINDOW = 127  # elements of a pooling window, the kernels' limit


def short(value: Any) -> str:
    """A value as an error message shows it: an array's or a tensor's dtype and shape, never its contents."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return repr(value)


def bad_value(op: str, argument: str, rule: str, got: Any) -> NoReturn:
    """Raises ValueError ``op: argument must rule, got got``."""
    raise ValueError(f"{op}: {argument} must {rule}, got {got if isinstance(got, str) else short(got)}")


def bad_type(op: str, argument: str, rule: str, got: Any) -> NoReturn:
    """Raises TypeError in the same wording."""
    raise TypeError(f"{op}: {argument} must {rule}, got {got if isinstance(got, str) else short(got)}")


def least_coeff(size: int) -> float:
    """The lowest bound on the coefficients of groups of ``size``: 1/cbrt(size), rounded up to three digits.

    No orthogonal matrix stays below 1/sqrt(size), and few come near it. Here the sampler's random walk gets below the
    bound nearly always (for groups of 3, six times of ten), and is begun anew where it does not.
    """
    return math.ceil(1000 / math.cbrt(size) - 1e-9) / 1000  # 0.5 for 8, whatever a system's cbrt makes of the last bit


def check_max_coeff(op: str, max_coeff: Any, size: int) -> None:
    """A bound is a number that keys can always be drawn for: from `least_coeff` to 1."""
    if max_coeff is None:
        return
    if not isinstance(max_coeff, (int, float)) or isinstance(max_coeff, bool):
        bad_type(op, "max_coeff", "be a number", type(max_coeff).__name__)
    if not least_coeff(size) <= max_coeff <= 1:
        bad_value(
            op, "max_coeff", f"be at least {least_coeff(size)} for groups of {size} and at most 1", f"{max_coeff}"
        )
