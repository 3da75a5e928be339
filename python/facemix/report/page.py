"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .answers import confusion
from .charts import curves, data_uri, matrix, strip
from .figures import comparison, heading
from .protections import protections
from .results import Runs
from .section import section
from .table import NETWORKS
from .template import template

__all__ = ["page"]

TEMPLATE = "report.html.j2"


def page(experiments: list[Runs]) -> str:
    """The HTML of one experiment or several.

    Raises:
        OSError: a picture that results name cannot be read.
        ValueError: it does not lie beside them.
    """
    return template("facemix.report", TEMPLATE).render(
        title=heading(experiments),
        comparisons=[comparison(experiments), *protections(experiments)] if len(experiments) > 1 else [],
        parts=[(section(runs), _pictures(runs)) for runs in experiments],
    )


def _pictures(runs: Runs) -> dict[str, Any]:
    """Everything that Markdown does without."""
    chance = runs.score("baseline", "chance").mean
    network = next(name for name in ("mixing_aware", "protected", "baseline") if name in runs.networks)
    counts = confusion(runs, network)
    return {
        # The last row of the table is chance itself.
        "strips": [*(strip(runs.accuracy(name), chance) for name in runs.networks), ""],
        "curves": curves(runs),
        "matrix": matrix(counts) if counts else None,
        "matrix_of": NETWORKS[network][1],
        "files": [
            (f"{name}, seed {runs.first['seed']}", data_uri(_picture(runs.first.folder, file)))
            for name, file in runs.first.values.get("pictures", {}).items()
        ],
    }


def _picture(folder: Path, file: object) -> Path:
    """Where a picture of the run in `folder` lies: nowhere else. A stranger's results may name any file of ours."""
    path = (folder / str(file)).resolve()
    if path.parent != folder.resolve() or path.suffix != ".png":
        raise ValueError(f"report: pictures must be .png files in {folder}, got {str(file)[:80]!r}")
    return path
