"""The table of control 3: the cloud part as one matrix, see `facemix.collapse`."""

from __future__ import annotations

from typing import Any

from .results import Runs
from .spread import Spread, count
from .table import Table

__all__ = ["collapse", "collapses", "edge_with_matrix"]


def collapses(runs: Runs) -> list[dict[str, Any]]:
    """Those of all seeds; empty where a seed has none."""
    found = [seed.values.get("collapse") for seed in runs.seeds]
    return [values for values in found if values] if all(found) else []


def edge_with_matrix(values: dict[str, Any]) -> int:
    """Multiply-adds of an edge that runs the matrix, whole or reduced, whichever is less."""
    whole: int = values["collapsed_multiply_adds"]
    if values["low_rank"] is None:
        return whole
    return min(whole, whole - values["matrix_multiply_adds"] + values["low_rank"]["multiply_adds"])


def collapse(runs: Runs) -> Table | None:
    """The network and the one with a matrix for its cloud; None where they were not compared."""
    seeds = collapses(runs)
    if not seeds:
        return None

    def share(name: str) -> str:
        return Spread.of(values[name] for values in seeds).percent()

    first = seeds[0]
    outputs, inputs = first["shape"]
    rows = [
        ("accuracy of the network, through the mix", share("accuracy")),
        ("accuracy with the matrix, without a mix", share("collapsed_accuracy")),
        ("decisions in which the two agree", share("agreement")),
        ("decisions in which the network agrees with itself under another key", share("self_agreement")),
        ("error of the scores, of their norm", share("relative_error")),
        ("matrix, outputs x inputs", f"{outputs:,} x {inputs:,}"),
        ("multiply-adds of the matrix", count(first["matrix_multiply_adds"])),
        ("multiply-adds of the cloud part", count(first["cloud_multiply_adds"])),
        ("multiply-adds of the edge, as it is cut", count(first["edge_multiply_adds"])),
        ("multiply-adds of the edge with the matrix", count(first["collapsed_multiply_adds"])),
    ]
    reduced = [values["low_rank"] for values in seeds if values["low_rank"] is not None]
    if len(reduced) == len(seeds):
        ranks = sorted(low_rank["rank"] for low_rank in reduced)
        least = [edge_with_matrix(values) for values in seeds]
        rows += [
            ("the matrix reduced: rank", _range(ranks, str)),
            ("accuracy with it", Spread.of(low_rank["accuracy"] for low_rank in reduced).percent()),
            ("multiply-adds of the edge with it", _range(sorted(least), count)),
        ]
    return Table("Control 3: the cloud part as one matrix", ("", "figure"), tuple(rows))


def _range(values: list[int], write: Any) -> str:
    low, high = write(values[0]), write(values[-1])
    return str(low) if low == high else f"{low} to {high}"
