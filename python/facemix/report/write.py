"""Writes the report of experiments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from facemix.atomic import atomic_path

from .markdown import markdown
from .page import page
from .results import RESULTS, read_runs

__all__ = ["HTML", "MARKDOWN", "write_report"]

HTML, MARKDOWN = "report.html", "report.md"


def write_report(folders: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Write `report.html`, `report.md`, and `results.json`: a list of the results of all seeds.

    Args:
        folders: of experiments, as `facemix train --out` makes them; at least one.
        out: where to write.

    Raises:
        ValueError: a folder holds no results, or such as do not belong together; or `out` is the folder of a seed.
        OSError: a file cannot be read or written.
    """
    experiments, out = [read_runs(folder) for folder in folders], Path(out)
    if not experiments:
        raise ValueError("report: folders must be those of one experiment, or more, got none")
    if any(out.resolve() == seed.folder.resolve() for runs in experiments for seed in runs.seeds):
        raise ValueError(f"report: --out must not be the folder of a seed, whose {RESULTS} it would replace, got {out}")
    results = [seed.values for runs in experiments for seed in runs.seeds]
    texts = {HTML: page(experiments), MARKDOWN: markdown(experiments), RESULTS: json.dumps(results) + "\n"}
    for name, text in texts.items():
        with atomic_path(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
