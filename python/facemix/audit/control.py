"""The positive control: an attack that fails where nothing is hidden shows nothing about what is."""

from __future__ import annotations

from .outcome import Outcome, interval

__all__ = ["fails_unprotected"]


def fails_unprotected(values: list[float], floor: float, seed: int) -> Outcome | None:
    """An outcome "not converged" if the attack on unprotected rows is not clearly above the floor.

    Args:
        values: what it gets of each, N >= 1; their mean is the ceiling.
        floor: see `Outcome`.
        seed: see `interval`.
    """
    if interval(values, seed)[0] > floor:
        return None
    return Outcome(
        "not converged",
        f"On unprotected rows the attack gets {sum(values) / len(values):.2f}, not clearly more than the floor, "
        f"{floor:.2f}: it does not work on these data, or needs more of them.",
    )
