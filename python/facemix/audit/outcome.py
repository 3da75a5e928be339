"""What came of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # of scipy.stats, which takes long to import, t.ppf

from facemix.pictures import Line

__all__ = ["Outcome", "Roc", "Variant", "interval"]

Status = Literal["done", "not converged", "skipped", "does not apply"]

RESAMPLES = 2000
NORMAL = NormalDist().inv_cdf(0.975)


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
        interval: of the result, 95 %, over the victims or the groups (see `interval`); None: not drawn.
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

        None where the attack is not done, or does no better where nothing is hidden than by chance: then no result,
        however high, is on the way from one to the other.
        """
        if self.status != "done" or self.floor is None or self.result is None or self.ceiling is None:
            return None
        if self.ceiling <= self.floor:
            return None
        return float(np.clip((self.result - self.floor) / (self.ceiling - self.floor), 0, 1))

    def beyond_chance(self, among: int = 1) -> bool | None:
        """Whether the whole interval lies above the floor. None where no interval was drawn, or nothing is done.

        Args:
            among: how many figures are looked at, to see whether one of them does: the interval is widened so that all
                of as many hold what they should in 95 % of cases (Bonferroni's correction, of normal quantiles).
        """
        if self.interval is None or self.status != "done" or self.floor is None or self.result is None:
            return None
        wider = NormalDist().inv_cdf(1 - 0.025 / max(among, 1)) / NORMAL
        return self.result - wider * (self.result - self.interval[0]) > self.floor


def interval(
    values: NDArray[np.floating] | list[float],
    seed: int,
    clusters: NDArray[np.integer] | Sequence[int] | None = None,
) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `values` [N], N >= 1, by the percentile bootstrap (Efron 1979) over clusters.

    The bootstrap of few clusters is too narrow: its ends are moved from the mean by as much as Student's quantile for
    them is larger than the normal one (Hesterberg 2015), and not beyond the lowest and the highest value.

    Args:
        values: of victims, rows, sources.
        seed: of the resampling.
        clusters: int [N], values with the same number depend on each other: those of the rows of a group. Default:
            every value is independent of the others.

    Returns:
        None where there is one cluster only, of several values: nothing tells how much another one would differ.
    """
    known = np.asarray(values, np.float64)
    of = np.arange(len(known)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sums, sizes = np.bincount(of, known), np.bincount(of)
    count = len(sums)
    if count == 1:
        return None if len(known) > 1 else (float(known[0]), float(known[0]))
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    mean = known.mean()
    ends = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    wider = np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.975) / NORMAL
    low, high = np.clip(mean + wider * (ends - mean), known.min(), known.max())
    return float(low), float(high)
