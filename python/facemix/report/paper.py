"""The paper's accuracies (its Tables 2 and 3), for a report to stand beside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPER_SETTINGS", "PaperRow", "paper_rows"]

#: What the paper's figures are of (its Section 4).
PAPER_SETTINGS = "ResNet-18, 40 attributes, groups of 8, average of four runs"


@dataclass(frozen=True)
class PaperRow:
    """A line of Table 2 or 3, in percent as printed.

    Attributes:
        pre: blocks of the edge's first part (N_pre); None: the baseline, without the mix.
        validation, test: accuracy on each set; None where the paper has none.
        balanced: balanced accuracy on the test set; None where the paper has none.
    """

    pre: int | None
    validation: float | None
    test: float
    balanced: float | None


TABLES = {
    "celeba": (
        PaperRow(None, 91.6, 91.0, None),
        PaperRow(1, 91.2, 90.7, None),
        PaperRow(2, 91.2, 90.7, None),
        PaperRow(3, 91.4, 91.0, None),
    ),
    "lfwa": (
        PaperRow(None, None, 91.1, 87.1),
        PaperRow(1, None, 90.5, 86.8),
        PaperRow(2, None, 90.7, 86.9),
        PaperRow(3, None, 90.7, 87.1),
    ),
}


def paper_rows(source: str) -> tuple[PaperRow, ...]:
    """The paper's baseline and its three partitions for a source of data; empty for one that it does not use."""
    return TABLES.get(source, ())
