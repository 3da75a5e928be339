"""A table of a report, the same one for the page and for Markdown; and what the networks are called in it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["NETWORKS", "Table"]

#: In the order of the tables; the second name serves where there is little room.
NETWORKS = {
    "baseline": ("baseline, no mix", "baseline"),
    "baseline_longer": ("baseline, longer, no mix", "baseline, longer"),
    "mixing_aware": ("mixing-aware, through the mix", "mixing-aware"),
    "protected": ("behind the protection", "protected"),
    "mixing_aware_plain": ("mixing-aware, no mix", "mixing-aware, no mix"),
    "baseline_mixed": ("control 1: baseline, through the mix", "baseline, mixed"),
    "linear_cloud": ("control 2: linear cloud, through the mix", "linear cloud"),
    "collapsed": ("control 3: mixing-aware, cloud as one matrix", "collapsed"),
}


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first column is words, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """A GitHub table, title and note around it."""
        cells = ([escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in (self.columns, *self.rows))
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, "|---" + "|---:" * (len(self.columns) - 1) + "|")
        return "\n".join([f"**{self.title}**", "", *lines, *(["", self.note] if self.note else [])])
