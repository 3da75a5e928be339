"""Whether an attack's result means anything."""

from __future__ import annotations

from typing import Literal

__all__ = ["Verdict", "judged"]

Verdict = tuple[Literal["done", "not converged"], str]

CLEARLY, MOST = 0.1, 0.9


def judged(floor: float, result: float, ceiling: float, ended: float) -> Verdict:
    """Status and reason of an `Outcome`.

    Args:
        floor, result, ceiling: see `Outcome`.
        ended: share of the searches that came to an end before they ran out of steps.
    """
    if ceiling < floor + CLEARLY:
        reason = f"the attack itself fails: it gets {ceiling:.2f} of unprotected rows, and the floor is {floor:.2f}"
        return "not converged", reason
    if ended < MOST and result < (floor + ceiling) / 2:
        return "not converged", f"the search ran out of steps in {1 - ended:.0%} of the groups"
    return "done", ""
