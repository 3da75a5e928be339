"""What differs between the settings of two trainings, the first of which was there before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["difference"]


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
