"""Tables of where the figures come from: settings, machine, versions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .results import Result, Runs
from .table import Table

__all__ = ["environments", "flat", "settings"]


def settings(runs: Runs) -> Table:
    """All that decides the figures."""
    return Table("Settings", ("setting", "value"), tuple(flat(runs.first.settings)))


def environments(runs: Runs) -> Table:
    """Machine, versions and commit of each seed; seeds that share them share a column.

    How long a training took before it was interrupted, perhaps killed, nobody knows.
    """
    columns: list[tuple[dict[str, str], list[Result]]] = []
    for seed in runs.seeds:
        values = dict(flat(seed["environment"]))
        for known, seeds in columns:
            if known == values:
                seeds.append(seed)
                break
        else:
            columns.append((values, [seed]))
    names = list(dict.fromkeys(name for values, _ in columns for name in values))
    heads = ("seed " + ", ".join(str(seed["seed"]) for seed in seeds) for _, seeds in columns)
    rows = [(name, *(values.get(name, "") for values, _ in columns)) for name in names]
    times = (", ".join(f"{seed['seconds']:,.0f}" for seed in seeds) for _, seeds in columns)
    return Table("Machine and versions", ("", *heads), (*rows, ("seconds, since it last went on", *times)))


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """JSON values as lines of a table, with dots in the names of what lies deeper."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else json.dumps(value)
