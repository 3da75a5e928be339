"""The figures of a sweep: one CSV line for each row and seed, one line of Markdown for each row."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemix.atomic import atomic_path
from facemix.report import Runs, Spread, read_runs
from facemix.report.spread import count, percent
from facemix.report.table import NETWORKS, Table

from .plan import Plan

__all__ = ["Row", "read_rows", "table", "whole_multiply_adds", "write_csv"]

COST = ("edge_multiply_adds", "edge_share", "edge_parameters", "cloud_multiply_adds", "bytes_up", "bytes_down")
CONTROLS = ("baseline_longer", "baseline_mixed", "mixing_aware_plain", "linear_cloud", "collapsed")
SCORE = ("accuracy", "balanced_accuracy", "chance")
COLUMNS = (
    *("pre", "group_size", "seed", *SCORE, "baseline", *CONTROLS),
    *("recovered", *COST, "whole_multiply_adds", "seconds"),
)


@dataclass(frozen=True)
class Row:
    """The finished seeds of one row.

    Attributes:
        pre, group_size: see `Job`.
        runs: the results.
    """

    pre: int | None
    group_size: int
    runs: Runs

    @property
    def network(self) -> str:
        """That whose accuracy is the row's."""
        return "baseline" if self.pre is None else "mixing_aware"

    @property
    def accuracy(self) -> Spread:
        """Over the seeds."""
        return self.runs.accuracy(self.network)

    @property
    def recovered(self) -> Spread | None:
        """What audits recovered, over the seeds; None where one of them had none that can tell."""
        values = [seed.recovered for seed in self.runs.seeds]
        return None if None in values else Spread.of(value for value in values if value is not None)


def read_rows(plan: Plan) -> list[Row]:
    """Rows with at least one finished seed, the baseline first, then by partition and group size."""
    finished = {job.row: job for job in (*plan.baselines, *plan.mixed) if plan.done(job)}
    ordered = sorted(finished.values(), key=lambda job: (job.pre or 0, job.group_size))
    return [Row(job.pre, job.group_size, read_runs(plan.out / job.row)) for job in ordered]


def whole_multiply_adds(rows: list[Row]) -> int | None:
    """Those of the baseline, which rows with a cut tell; None where there is none yet."""
    return next((row.runs.first["cost"]["whole_multiply_adds"] for row in rows if row.pre is not None), None)


def write_csv(path: Path, rows: list[Row]) -> None:
    """A line for each row and seed; accuracies are shares; what is not there is empty."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            for seed in row.runs.seeds:
                score = seed["scores"][row.network]
                values: dict[str, Any] = {"group_size": row.group_size, "seed": seed["seed"]}
                values |= {name: score[name] for name in SCORE}
                values |= {"recovered": seed.recovered, "seconds": round(seed["seconds"], 1)}
                values |= {"whole_multiply_adds": whole_multiply_adds(rows)}
                values |= {name: seed.accuracies[name] for name in ("baseline", *CONTROLS) if name in seed.accuracies}
                if row.pre is not None:
                    values |= {"pre": row.pre, **{name: seed["cost"][name] for name in COST}}
                writer.writerow(values)


def table(rows: list[Row]) -> Table:
    """A line for each row: mean and standard deviation over its seeds."""
    whole = whole_multiply_adds(rows)
    controls = [name for name in CONTROLS if any(name in row.runs.networks for row in rows)]
    lines = []
    for row in rows:
        runs, mixed = row.runs, row.pre is not None
        edge, share = whole, 1.0
        if mixed:
            edge, share = (runs.first["cost"][name] for name in ("edge_multiply_adds", "edge_share"))
        lines.append(
            (
                f"N_pre = {row.pre}, S = {row.group_size}" if mixed else "baseline, no mix",
                str(len(runs.seeds)),
                row.accuracy.percent(),
                _points(runs.accuracy(runs.rival) - row.accuracy) if mixed else "",
                *(runs.accuracy(name).percent() if name in runs.networks else "" for name in controls),
                row.recovered.percent() if row.recovered else "not measured" if mixed else "",
                "" if edge is None else count(edge),
                percent(share),
            )
        )
    columns = ("", "seeds", "accuracy", "lost, points", *(NETWORKS[name][1] for name in controls))
    columns += ("recovered, at least", "multiply-adds on the edge", "share")
    note = "Mean ± standard deviation over the seeds. The baseline runs on the edge as a whole."
    if "baseline_longer" in controls:
        note += " Lost: against the longer baseline."
    return Table("Accuracy by partition and group size", columns, tuple(lines), note)


def _points(loss: Spread) -> str:
    return f"{100 * loss.mean:.1f}" if loss.std is None else f"{100 * loss.mean:.1f} ± {100 * loss.std:.1f}"
