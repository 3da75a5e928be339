"""A figure over seeds, and how figures are written."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Spread", "count", "percent", "points"]


@dataclass(frozen=True)
class Spread:
    """The values of a figure, one of each seed; at least one."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of `values`."""
        return cls(tuple(values))

    @property
    def mean(self) -> float:
        """Of the values."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None of a single value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)

    def __sub__(self, other: Spread) -> Spread:
        """The differences, seed by seed."""
        return Spread.of(a - b for a, b in zip(self.values, other.values, strict=True))

    def percent(self) -> str:
        """As in "96.0 ± 0.4 %"; of one value without the deviation."""
        return percent(self.mean) if self.std is None else f"{100 * self.mean:.1f} ± {100 * self.std:.1f} %"

    def limits(self) -> str:
        """As in "95.6 to 96.4 %"; empty of one value."""
        return "" if self.std is None else f"{100 * self.low:.1f} to {100 * self.high:.1f} %"


def percent(share: float) -> str:
    """As in "96.0 %"."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares, as in "1.0 point" or "2.5 points"."""
    text = f"{100 * difference:.1f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def count(number: float) -> str:
    """As in "1.50 G", "0.43 M" or "9,216"."""
    if number >= 1e9:
        return f"{number / 1e9:.2f} G"
    return f"{number / 1e6:.2f} M" if number >= 1e4 else f"{number:,.0f}"
