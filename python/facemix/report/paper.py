"""The paper's accuracies (its Tables 2 and 3), for a report to stand beside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASELINE", "PAPER_SETTINGS", "PaperRow", "paper_rows"]

#: What the paper's figures are of (its Section 4).
PAPER_SETTINGS = "ResNet-18, 40 attributes, groups of 8, average of four runs"
BASELINE = "baseline"


@dataclass(frozen=True)
class PaperRow:
    """A line of Table 2 or 3, in percent as printed.

    Attributes:
        method: as `Runs.method` has it, or `BASELINE`: the network on the images themselves.
        validation, test: accuracy on each set; None where the paper has none.
        balanced: balanced accuracy on the test set; None where the paper has none.
    """

    method: str
    validation: float | None
    test: float
    balanced: float | None


TABLES = {
    "celeba": (
        PaperRow(BASELINE, 91.6, 91.0, None),
        PaperRow("noise, sigma 4", 89.2, 88.6, None),
        PaperRow("noise, sigma 8", 88.5, 87.9, None),
        PaperRow("blur to 16 x 16", 89.6, 89.0, None),
        PaperRow("blur to 8 x 8", 87.9, 87.3, None),
        PaperRow("face anonymizer, width 64", 90.5, 89.8, None),
        PaperRow("FaceMix, N_pre = 1", 91.2, 90.7, None),
        PaperRow("FaceMix, N_pre = 2", 91.2, 90.7, None),
        PaperRow("FaceMix, N_pre = 3", 91.4, 91.0, None),
    ),
    "lfwa": (
        PaperRow(BASELINE, None, 91.1, 87.1),
        PaperRow("noise, sigma 4", None, 88.5, 82.5),
        PaperRow("noise, sigma 8", None, 87.7, 81.3),
        PaperRow("blur to 16 x 16", None, 88.8, 83.4),
        PaperRow("blur to 8 x 8", None, 87.0, 80.6),
        PaperRow("FaceMix, N_pre = 1", None, 90.5, 86.8),
        PaperRow("FaceMix, N_pre = 2", None, 90.7, 86.9),
        PaperRow("FaceMix, N_pre = 3", None, 90.7, 87.1),
    ),
}


def paper_rows(source: str) -> tuple[PaperRow, ...]:
    """All that the paper prints for a source of data; empty for one that it does not use."""
    return TABLES.get(source, ())
