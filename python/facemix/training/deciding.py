"""Which settings decide what comes out of an experiment: where these are the same, training goes on, seeds share a
report, and sweeps a folder. And what differs where they are not, in words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["deciding", "difference", "plain"]

#: Those of the data and of the trainer that do not: where things lie on a machine, and how it shares the work.
NO_MATTER = (
    "cache",
    "workers",
    "root",
    "labels",
    "devices",
    "num_nodes",
    "strategy",
    "accelerator",
    "enable_progress_bar",
)


def deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of an experiment those that decide, as JSON values."""
    kept = plain(settings)
    for section in ("data", "trainer"):
        if isinstance(kept.get(section), dict):
            kept[section] = {key: value for key, value in kept[section].items() if key not in NO_MATTER}
    return kept


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON values."""
    found: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return found


def difference(found: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, for an error: the names of the settings that differ, as options have them, and the first one's values;
    "" where none does.
    """
    pairs = _pairs(found, now)
    if not pairs:
        return ""
    name, (before, after) = next(iter(pairs.items()))
    return f"{', '.join(pairs)} differ ({name}: {before}, then {after})"


def _pairs(found: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    pairs: dict[str, tuple[Any, Any]] = {}
    for key in sorted(found.keys() | now.keys()):
        before, after = found.get(key), now.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            pairs |= _pairs(before, after, f"{prefix}{key}.")
        elif before != after:
            pairs[prefix + key] = before, after
    return pairs
