"""What came of an attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facemix.pictures import Line

__all__ = ["Outcome", "Roc", "Variant", "interval"]

Status = Literal["done", "not converged", "skipped", "does not apply"]

RESAMPLES = 2000


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic.

    Attributes:
        name: of what is told from what.
        false_positive, true_positive: rising from 0 to 1; at most 200 points.
        auc: the area below it; 0.5 is chance.
    """

    name: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    auc: float


@dataclass(frozen=True)
class Variant:
    """One of several ways to carry out the same attack, or a second figure of it.

    Attributes:
        name: of it, and of what is measured.
        floor, result, ceiling: see `Outcome`; None: not measured.
    """

    name: str
    result: float
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of an attack. All figures grow with what the attacker gets.

    Attributes:
        status: "done"; "not converged": the attack itself failed on data that it must succeed on, or ran out of steps;
            "skipped": it was not run. Those two say nothing about safety. "does not apply": there is nothing to attack
            in this way, such as an un-mixing where nothing is mixed.
        reason: why, in a sentence, where the status is not "done".
        measure: what is measured, in a few words, with its unit: "mean matched |correlation|".
        floor: what somebody gets who does not attack: by chance, or from the rows as they are.
        result: what the attack gets.
        ceiling: what it would get if nothing were hidden. It is measured by the same attack on unprotected rows where
            that makes sense, and so shows that the attack works at all.
        interval: of the result, 95 %, over the victims or the requests (see `interval`); None: not drawn.
        says: the result in one plain sentence, with its figures: it stands in the verdict.
        variants: further figures.
        curves: for decisions with a threshold.
        pictures: lines of pictures with as many columns each: what was photographed, sent, recovered.
        seconds: what it took; `run_audit` sets it.
    """

    status: Status
    reason: str = ""
    measure: str = ""
    floor: float | None = None
    result: float | None = None
    ceiling: float | None = None
    interval: tuple[float, float] | None = None
    says: str = ""
    variants: tuple[Variant, ...] = ()
    curves: tuple[Roc, ...] = ()
    pictures: tuple[Line, ...] = field(default=(), compare=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.status != "done":
            if not self.reason:
                raise ValueError(f"Outcome: reason must say why an attack is {self.status!r}, got none")
            return
        figures = {"floor": self.floor, "result": self.result, "ceiling": self.ceiling}
        for name, value in figures.items():
            if value is None or not np.isfinite(value):
                raise ValueError(f"Outcome: {name} must be finite where the status is 'done', got {value}")
        if not self.measure or not self.says:
            raise ValueError("Outcome: measure and says must not be empty where the status is 'done'")

    @property
    def recovered(self) -> float | None:
        """How far the result lies between floor and ceiling, 0 to 1: what verdicts and thresholds go by.

        None where the attack is not done.
        """
        if self.status != "done" or self.floor is None or self.result is None or self.ceiling is None:
            return None
        if self.ceiling <= self.floor:
            return 1.0 if self.result >= self.ceiling else 0.0
        return float(np.clip((self.result - self.floor) / (self.ceiling - self.floor), 0, 1))


def interval(values: NDArray[np.floating] | list[float], seed: int) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` [N], N >= 1, by the percentile bootstrap (Efron 1979).

    Args:
        values: one for each victim, or each request: what is independent of the others.
        seed: of the resampling.
    """
    known = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.quantile(known[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)
