"""Lines of small pictures, one below the other, in a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facemix.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLUMNS", "Line", "draw_lines"]

COLUMNS = 8
# Inches: side of a picture, width of the whole, captions, margins, space for titles.
MIN_SIDE, MAX_SIDE, MIN_WIDTH = 1.25, 2.0, 8.0
LEFT, TOP, EDGE, GAP, ROW = 1.8, 0.7, 0.2, 0.08, 0.14
RIGHT, WRONG = "#2a7f4f", "#c0392b"


@dataclass(frozen=True)
class Line:
    """Pictures beside each other.

    Attributes:
        caption: to the left of them.
        pictures: for each [H, W] or, in colour, [H, W, 3].
        limit: what is shown darkest, of values on both sides of zero; None: bytes, or values from 0 to 1.
        titles: above each; default: none.
        right: whether each is right, which colours frame and title; default: no frames.
    """

    caption: str
    pictures: Sequence[NDArray[np.generic]]
    limit: float | None = None
    titles: Sequence[str] | None = None
    right: Sequence[bool] | None = None


def draw_lines(path: Path, title: str, note: str, lines: Sequence[Line]) -> None:
    """Write a PNG.

    Args:
        path: of the PNG.
        title, note: above all, large and small.
        lines: from top to bottom, with as many pictures each.
    """
    from matplotlib.figure import Figure  # which takes long to import, and a `Line` does without

    columns, photograph = len(lines[0].pictures), lines[0].pictures[0]
    side = min(MAX_SIDE, max(MIN_SIDE, (MIN_WIDTH - LEFT - EDGE) / columns - GAP))
    tall = side * photograph.shape[0] / photograph.shape[1]
    above = [GAP + ROW * max(text.count("\n") + 1 for text in line.titles or [""]) for line in lines]
    width = max(MIN_WIDTH, LEFT + columns * (side + GAP) + EDGE)
    height = TOP + sum(above) + len(lines) * tall + EDGE
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.2 / height, title, ha="center", va="top", fontsize=14)
    figure.text(0.5, 1 - 0.5 / height, note, ha="center", va="top", fontsize=8.5, color="#555555")
    y = height - TOP
    for line, room in zip(lines, above, strict=True):
        y -= room + tall
        caption_y = (y + tall / 2) / height
        figure.text((LEFT - 0.12) / width, caption_y, line.caption, ha="right", va="center", fontsize=8.5)
        for column in range(columns):
            x = LEFT + column * (side + GAP)
            _draw(figure.add_axes((x / width, y / height, side / width, tall / height)), line, column)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _draw(axis: Axes, line: Line, column: int) -> None:
    picture, limit = np.asarray(line.pictures[column]), line.limit
    low, high = (0.0, 255.0 if picture.dtype == np.uint8 else 1.0) if limit is None else (-limit, limit)
    colours = "gray" if limit is None else "RdBu_r"
    axis.imshow(picture, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    axis.set(xticks=[], yticks=[])
    colour = "black" if line.right is None else RIGHT if line.right[column] else WRONG
    for spine in axis.spines.values():
        spine.set(visible=line.right is not None, color=colour, linewidth=2.5)
    if line.titles is not None:
        axis.set_title(line.titles[column], fontsize=8, color=colour, pad=3)
