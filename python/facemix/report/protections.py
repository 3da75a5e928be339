"""The mix beside the baselines of the paper, in the columns of its Table 2."""

from __future__ import annotations

from typing import Any

from .results import Runs
from .spread import Spread, count
from .table import Table

__all__ = ["protections"]

COLUMNS = ("", "parameters on the edge", "multiply-adds on the edge", "accuracy", "balanced accuracy", "recovered")
NOTE = (
    "The first line is the baseline, as a whole on the edge. Recovered: at least that, by the attack of facemix audit "
    "that gets most; mean of the seeds that were audited."
)


def protections(experiments: list[Runs]) -> list[Table]:
    """A table for each task among `experiments` that something other than the mix protects; empty if there is none."""
    tasks: dict[tuple[str, str], list[Runs]] = {}
    for runs in experiments:
        tasks.setdefault((runs.first["data"]["source"], runs.first["data"]["task"]), []).append(runs)
    return [
        _table(f"Protections, {source}, {task}", [runs for runs in those if "cost" in runs.first.values])
        for (source, task), those in tasks.items()
        if any(runs.protected for runs in those)
    ]


def _table(title: str, experiments: list[Runs]) -> Table:
    # Results of older versions do not know all of the baseline's cost.
    baseline = next((runs for runs in experiments if "whole_parameters" in runs.first["cost"]), experiments[0])
    cost = baseline.first["cost"]
    whole = {"edge_parameters": cost.get("whole_parameters"), "edge_multiply_adds": cost["whole_multiply_adds"]}
    rows = [("all on the edge", *_figures(baseline, "baseline", whole), "nothing is sent")]
    for runs in experiments:
        network = "protected" if runs.protected else "mixing_aware"
        rows.append((_name(runs), *_figures(runs, network, runs.first["cost"]), _recovered(runs)))
    return Table(title, COLUMNS, tuple(rows), NOTE)


def _name(runs: Runs) -> str:
    return runs.method if runs.protected else f"{runs.method}, S = {runs.first['settings']['mix']['group_size']}"


def _recovered(runs: Runs) -> str:
    found = [seed.recovered for seed in runs.seeds if seed.recovered is not None]
    if found:
        return Spread.of(found).percent()
    return "unknown" if any(seed.values.get("privacy") for seed in runs.seeds) else "not measured"


def _figures(runs: Runs, network: str, cost: dict[str, Any]) -> tuple[str, ...]:
    costs = (cost[name] for name in ("edge_parameters", "edge_multiply_adds"))
    scores = (runs.score(network, name).percent() for name in ("accuracy", "balanced_accuracy"))
    return *("" if figure is None else count(figure) for figure in costs), *scores
