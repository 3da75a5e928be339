"""What the paper prints (FaceMix manuscript, Tables 2 and 3), for a report to stand beside."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASELINE", "PAPER_SETTINGS", "PaperRow", "paper_rows"]

#: What the paper's figures are of (its Section 4).
PAPER_SETTINGS = "ResNet-18, 40 attributes, groups of 8, average of four runs"
BASELINE = "baseline"


@dataclass(frozen=True)
class PaperRow:
    """A line of Table 2 or 3, in percent as printed; None where the paper has nothing.

    Attributes:
        method: as `Runs.method` has it, or `BASELINE`: the network on the images themselves. Noise has no scale in the
            paper, so that its rows are nobody's.
        validation, test: accuracy on each set.
        balanced: balanced accuracy on the test set.
        person, attributes: success of the paper's attack, which asks for who is in the photograph, or what.
    """

    method: str
    validation: float | None = None
    test: float | None = None
    balanced: float | None = None
    person: float | None = None
    attributes: float | None = None


TABLES = {
    "celeba": (
        PaperRow(BASELINE, 91.6, 91.0, None, 85.5, 79.3),
        PaperRow("noise N(0, 4), of a scale not printed", 89.2, 88.6, None, 46.5, 73.1),
        PaperRow("noise N(0, 8), of a scale not printed", 88.5, 87.9, None, 35.3, 70.8),
        PaperRow("blur to 16 x 16", 89.6, 89.0, None, 52.2, 73.1),
        PaperRow("blur to 8 x 8", 87.9, 87.3, None, 25.6, 68.7),
        PaperRow("face anonymizer, width 64", 90.5, 89.8, None, 62.6, 76.3),
        PaperRow("FaceMix, N_pre = 1", 91.2, 90.7, None, 0.6, 51.5),
        PaperRow("FaceMix, N_pre = 2", 91.2, 90.7, None, 0.6, 51.6),
        PaperRow("FaceMix, N_pre = 3", 91.4, 91.0, None, 0.6, 51.5),
    ),
    "lfwa": (
        PaperRow(BASELINE, None, 91.1, 87.1, None, 87.1),
        PaperRow("noise N(0, 4), of a scale not printed", None, 88.5, 82.5, None, 82.7),
        PaperRow("noise N(0, 8), of a scale not printed", None, 87.7, 81.3, None, 81.4),
        PaperRow("blur to 16 x 16", None, 88.8, 83.4, None, 83.6),
        PaperRow("blur to 8 x 8", None, 87.0, 80.6, None, 77.8),
        PaperRow("FaceMix, N_pre = 1", None, 90.5, 86.8, None, 50.6),
        PaperRow("FaceMix, N_pre = 2", None, 90.7, 86.9, None, 50.7),
        PaperRow("FaceMix, N_pre = 3", None, 90.7, 87.1, None, 50.6),
    ),
}


def paper_rows(source: str) -> tuple[PaperRow, ...]:
    """All that the paper prints for a source of data; empty for one that it does not use."""
    return TABLES.get(source, ())
