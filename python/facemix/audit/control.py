"""Whether an attack's result means anything: one that fails where nothing is hidden shows nothing about what is."""

from __future__ import annotations

from typing import Literal

from .outcome import Outcome, interval
from .scene import Scene

__all__ = ["fails_unprotected", "judged", "nothing_mixed", "too_few"]

CLEARLY, MOST = 0.1, 0.9


def fails_unprotected(values: list[float], floor: float, seed: int) -> Outcome | None:
    """An outcome "not converged" if the attack on unprotected rows is not clearly above the floor.

    Args:
        values: what it gets of each, N >= 1; their mean is the ceiling.
        floor: see `Outcome`.
        seed: see `interval`.
    """
    found = interval(values, seed)
    if found is not None and found[0] > floor:
        return None
    return Outcome(
        "not converged",
        f"On unprotected rows the attack gets {sum(values) / len(values):.2f}, not clearly more than the floor, "
        f"{floor:.2f}: it does not work on these data, or needs more of them.",
    )


def judged(floor: float, result: float, ceiling: float, ended: float) -> tuple[Literal["done", "not converged"], str]:
    """Status and reason of the `Outcome` of an attack that searches.

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


def nothing_mixed(scene: Scene) -> Outcome | None:
    """What `Attack.needs` returns of an attack that undoes a mix: an outcome where there is none."""
    return Outcome("does not apply", "nothing is mixed") if scene.edge.group_size == 1 else None


def too_few(scene: Scene) -> Outcome | None:
    """What `Attack.needs` returns of an attack that compares requests, or what was sent with what was not, with a
    `facemix.audit.detector`."""
    if not scene.half:
        return Outcome("skipped", "It needs two groups of victims, got fewer.")
    if len(scene.attacker) < scene.edge.group_size:
        return Outcome("skipped", "It needs a group of photographs of the attacker's own, got fewer.")
    return None
