"""Writes the report of an audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facemix.atomic import atomic_path
from facemix.audit.record import Audit
from facemix.pictures import draw_lines
from facemix.report.results import RESULTS, read_result

from .page import page

__all__ = ["HTML", "JSON", "add_privacy", "write_audit"]

HTML, JSON, PICTURES = "audit.html", "audit.json", "pictures"


def write_audit(audit: Audit, out: Path) -> None:
    """Write `audit.html`, which needs nothing beside it, `audit.json`, and the pictures of each attack as a PNG. Where
    an attack drew nothing, what an earlier audit left there is removed.

    Raises:
        OSError: a file cannot be written.
    """
    pictures = {}
    for attack in audit.attacks:
        path = out / PICTURES / f"{attack.name}.png"
        if lines := audit.outcomes[attack.name].pictures:
            pictures[attack.name] = path
            draw_lines(path, attack.title, audit.outcomes[attack.name].says, lines)
        else:
            path.unlink(missing_ok=True)
    _write(out / JSON, audit.as_json())
    with atomic_path(out / HTML) as temporary:
        temporary.write_text(page(audit, pictures), encoding="utf-8")


def add_privacy(audit: Audit, folder: Path) -> None:
    """Put how far the worst attack got into the results of the seed in `folder`, where reports and sweeps read it.

    Where an audit before this one is in there, what any of the two recovered counts, and an answer that any gave: one
    with less effort, or fewer attacks, must not look like safety.

    Raises:
        OSError, ValueError: there are no results, or they cannot be written.
    """
    path = folder / RESULTS
    values = read_result(path).values
    privacy = {**audit.privacy(), "settings": dict(audit.settings)}
    if before := values.get("privacy"):
        privacy = _both(before, privacy)
    _write(path, {**values, "privacy": privacy})


def _both(*audits: dict[str, Any]) -> dict[str, Any]:
    furthest = max(audits, key=lambda one: (_rank(one), -1.0 if one["recovered"] is None else one["recovered"]))
    answered = list(dict.fromkeys(name for one in audits for name in one.get("answered", ())))
    unknown = list(dict.fromkeys(name for one in audits for name in one["unknown"] if name not in answered))
    answer = furthest["answer"]
    if not _rank(furthest):
        answer = "unknown" if unknown or furthest["recovered"] is None else "withstood"
    return {**furthest, "answer": answer, "unknown": unknown, "answered": answered}


def _rank(audit: dict[str, Any]) -> int:
    """More where more was recovered that counts; 0 where nothing was."""
    return {"recovered": 2, "partly": 1}.get(audit["answer"], 0)


def _write(path: Path, values: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
