"""What a report says of one experiment, on the page and in Markdown alike."""

from __future__ import annotations

from dataclasses import dataclass

from . import answers, figures, origin
from .collapse import collapse
from .results import Runs
from .table import Table
from .verdict import Verdict, verdict

__all__ = ["Section", "section"]


@dataclass(frozen=True)
class Section:
    """Verdict and tables of one experiment.

    Attributes:
        runs: the experiment.
        verdict: comes first.
        accuracy: a row for each network.
        others: tables of the rest of the figures.
        settings, environments: what they are of.
    """

    runs: Runs
    verdict: Verdict
    accuracy: Table
    others: tuple[Table, ...]
    settings: Table
    environments: Table


def section(runs: Runs) -> Section:
    """Compute all of it."""
    others = (figures.paper(runs), figures.cost(runs), collapse(runs), answers.attributes(runs), answers.confused(runs))
    return Section(
        runs,
        verdict(runs),
        figures.accuracy(runs),
        tuple(table for table in others if table is not None),
        origin.settings(runs),
        origin.environments(runs),
    )
