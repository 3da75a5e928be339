"""The paper's Figure 4: accuracy against privacy, and against what the edge computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from facemix.atomic import atomic_path
from facemix.report.table import NETWORKS

from .rows import Row, whole_multiply_adds

__all__ = ["plot_efficiency", "plot_privacy"]

SIZE, DPI = (7.6, 4.2), 150
COLOURS = ("#2a6fbb", "#b0662a", "#2a7f4f", "#8a4fa3", "#b3382c", "#4b8f94", "#7d6b2b", "#5c636b")
MARKERS = "osD^vP*X"
BASELINE = "#5c636b"


def plot_privacy(path: Path, rows: list[Row]) -> None:
    """Figure 4a, a line for each partition: against what audits recovered, else against the group size."""
    figure, axes = _figure(rows)
    mixed = [row for row in rows if row.pre is not None]
    measured = bool(mixed) and all(row.recovered is not None for row in mixed)

    def privacy(row: Row) -> float:
        return row.recovered.mean if measured and row.recovered is not None else row.group_size

    _lines(axes, mixed, lambda row: row.pre or 0, privacy, "N_pre = {}")
    if measured:
        axes.set_xlabel("recovered by facemix audit, at least (less is more private)")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        axes.set_xlabel("group size (privacy is not measured: facemix audit is not run)")
        axes.set_xscale("log", base=2)
        sizes = sorted({row.group_size for row in mixed})
        axes.set_xticks(sizes, map(str, sizes))
    _finish(figure, axes, "Accuracy against privacy", path)


def plot_efficiency(path: Path, rows: list[Row]) -> None:
    """Figure 4b, a line for each group size: against the multiply-adds of the edge."""
    figure, axes = _figure(rows)

    def multiply_adds(row: Row) -> float:
        return float(row.runs.first["cost"]["edge_multiply_adds"]) / 1e6

    mixed = sorted((row for row in rows if row.pre is not None), key=lambda row: (row.group_size, row.pre))
    _lines(axes, mixed, lambda row: row.group_size, multiply_adds, "S = {}")
    whole = whole_multiply_adds(rows)
    baseline = "" if whole is None else f" (the whole baseline: {whole / 1e6:,.4g})"
    axes.set_xlabel(f"million multiply-adds on the edge for an image{baseline}")
    _finish(figure, axes, "Accuracy against efficiency", path)


def _figure(rows: list[Row]) -> tuple[Figure, Axes]:
    """Axes with the baseline, the longer one if there is one, as a line, its deviation as a band."""
    figure = Figure(SIZE, layout="constrained")
    axes = figure.subplots()
    runs = next((row.runs for row in rows if row.pre is None), None)
    if runs is not None:
        spread = runs.accuracy(runs.rival)
        axes.axhline(spread.mean, color=BASELINE, linestyle="--", label=NETWORKS[runs.rival][0])
        deviation = spread.std or 0.0
        axes.axhspan(spread.mean - deviation, spread.mean + deviation, color=BASELINE, alpha=0.15, linewidth=0)
    return figure, axes


def _lines(axes: Axes, rows: Iterable[Row], key: Callable[[Row], int], x: Callable[[Row], float], label: str) -> None:
    """A line for each value of `key`, by which `rows` are sorted; bars are standard deviations."""
    for index, (value, group) in enumerate(groupby(rows, key)):
        line = sorted(group, key=x)
        axes.errorbar(
            [x(row) for row in line],
            [row.accuracy.mean for row in line],
            [row.accuracy.std or 0.0 for row in line],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            capsize=3,
            label=label.format(value),
        )


def _finish(figure: Figure, axes: Axes, title: str, path: Path) -> None:
    axes.set_title(title)
    axes.set_ylabel("accuracy (mean and deviation over seeds)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png")
