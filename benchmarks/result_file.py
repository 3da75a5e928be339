"""How a result is written: with five digits, a line a race, and never half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facemix.atomic import atomic_path


def write(path: Path, text: str) -> None:
    """A file that is either new or as it was; its folder is made where there is none."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def rounded(value: Any) -> Any:
    """All floats in ``value`` to the five digits that a measurement may have."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def compact(data: dict[str, Any]) -> str:
    """The file as we commit it: one line a result."""
    head = json.dumps({key: value for key, value in data.items() if key != "results"}, indent=4)
    return head[:-2] + ',\n    "results": [\n' + ",\n".join(map(json.dumps, data["results"])) + "\n    ]\n}\n"
