"""The result of benchmarks/hardening.py as Markdown: for its own output, and for docs/hardening.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facemix.audit.verdict import FAINT
from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "hardening.json"


def cost_table(data: dict[str, Any]) -> str:
    """A row for each mode: accuracy and cost."""
    lines = [["", "share", "accuracy", "edge, CPU ms", "beforehand, CPU ms", "pool, bytes", "bytes up", "bytes down"]]
    for row in data["modes"]:
        share, *offline = ["-"] * 3
        if "share" in row:
            share, *offline = f"{row['share']:.2g}", f"{row['offline_ms']:.2f}", f"{row['pool_bytes']:.0f}"
        lines.append(
            [
                row["name"],
                share,
                f"{row['accuracy']:.1%}",
                f"{row['edge_ms']:.2f}",
                *offline,
                str(row["bytes_up"]),
                str(row["bytes_down"]),
            ]
        )
    return markdown_table(lines[0], lines[1:])


def attack_table(data: dict[str, Any]) -> str:
    """A row for each attack and each what-if, a column for each mode: the result between floor and ceiling, and how far
    that is.
    """
    names = [name for name in data["modes"][0]["attacks"] if _known(data, name)]
    lines = [["", *(row["name"] for row in data["modes"])]]
    for name in names:
        found = [row["attacks"][name] for row in data["modes"]]
        lines.append([name, *map(_cell, found)])
        what_ifs = dict.fromkeys(each for one in found for each in one["variants"] if each.startswith("if "))
        for each in what_ifs:
            values = (one["variants"].get(each) for one in found)
            lines.append([f"{name}, {each}", *("-" if value is None else f"{value:.3f}" for value in values)])
    return markdown_table(lines[0], lines[1:])


def choice_table(data: dict[str, Any]) -> str:
    """A row for each way to blind, a column for each share."""
    shares = [f"{row['share']:g}" for row in data["choice"]]
    lines = [["share of a mixed row", *shares]]
    for key, name in (("one", "a secret row for each that is sent"), ("mixed_in", "32 secret rows, mixed in")):
        lines.append([name, *(f"{row[key]:.1%}" for row in data["choice"])])
    return markdown_table(lines[0], lines[1:])


def source(data: dict[str, Any]) -> str:
    """Where it comes from."""
    where = data["environment"]
    return (
        f"ORL, {data['images']} test photographs, {data['rounds']} rounds, groups of 8; attacks at effort "
        f"{data['effort']}. {where['cpu']}, {where['cores']} cores, PyTorch {where['versions']['torch']}, "
        f"{where['threads']} thread{'s' * (where['threads'] > 1)}; commit {where['commit'][:7]}, {where['date']}."
    )


def tables(data: dict[str, Any]) -> dict[str, str]:
    """All of it, by what the markers in docs/hardening.md say behind "hardening"."""
    return {
        "choice": choice_table(data),
        "cost": cost_table(data),
        "attacks": attack_table(data),
        "source": source(data),
    }


def _known(data: dict[str, Any], name: str) -> bool:
    return any(row["attacks"][name]["status"] == "done" for row in data["modes"])


def _cell(found: dict[str, Any]) -> str:
    if found["status"] != "done":
        return found["status"]
    chance = ", not significant" * (found["level"] == "withstood" and found["recovered"] >= FAINT)
    return f"{found['result']:.3f} ({found['floor']:.3f} to {found['ceiling']:.3f}): {found['recovered']:.0%}{chance}"
