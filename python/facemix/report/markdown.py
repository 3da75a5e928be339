"""The report as Markdown."""

from __future__ import annotations

from .figures import comparison, heading
from .protections import protections
from .results import Runs
from .section import section

__all__ = ["markdown"]


def markdown(experiments: list[Runs]) -> str:
    """Verdicts and tables of one experiment or several."""
    parts = [f"# {heading(experiments)}"]
    if len(experiments) > 1:
        parts += [table.markdown() for table in (comparison(experiments), *protections(experiments))]
    for runs in experiments:
        if len(experiments) > 1:
            parts.append(f"## {runs.variant}")
        told = section(runs)
        parts.append(f"**{told.verdict.headline}**")
        parts.append("\n".join(f"- {reason}" for reason in told.verdict.reasons))
        parts += [table.markdown() for table in (told.accuracy, *told.others, told.settings, told.environments)]
    return "\n\n".join(parts) + "\n"
