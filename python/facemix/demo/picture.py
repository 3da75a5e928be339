"""The demo in one picture: who was asked about, what the cloud received, what came out."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # a file, not a window: the machine may have no display
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from facemix.data import Faces
from facemix.storage import atomic_path

from .measure import Passage

__all__ = ["draw"]

COLUMNS = 8
CHANNELS = 3
RIGHT, WRONG = "#2a7f4f", "#c0392b"


def draw(path: Path, passage: Passage, train: Faces, group_size: int) -> None:
    """Write a PNG: faces of a request, channels of rows that the cloud received, and the people predicted.

    Args:
        path: of the PNG.
        passage: of the mixing-aware network.
        train: where the pictures of predicted people come from.
        group_size: for the caption.
    """
    columns = min(COLUMNS, len(passage.faces))
    figure, axes = plt.subplots(
        CHANNELS + 2,
        columns,
        figsize=(1.25 * columns + 1.6, 8.4),
        squeeze=False,
        gridspec_kw={"wspace": 0.06, "hspace": 0.22},
    )
    figure.subplots_adjust(left=0.17, right=0.985, top=0.9, bottom=0.035)
    figure.suptitle("facemix: what the edge sees, what the cloud receives, what comes out", fontsize=14, x=0.5, y=0.965)
    for column in range(columns):
        _image(axes[0, column], passage.faces[column, 0].numpy(), "gray")

    # The channels that vary most show most; the same scale for all, centred on zero.
    spread = passage.received.std(axis=(0, 2, 3))
    chosen = np.sort(np.argsort(spread)[::-1][:CHANNELS])
    for line, channel in enumerate(chosen, start=1):
        limit = float(np.quantile(np.abs(passage.received[:columns, channel]), 0.99))
        for column in range(columns):
            _image(axes[line, column], passage.received[column, channel], "RdBu_r", limit)

    for column in range(columns):
        predicted, person = int(passage.predicted[column]), int(passage.identity[column])
        example = train.images[(train.identity == predicted).nonzero()[0, 0], 0].numpy()
        colour = RIGHT if predicted == person else WRONG
        _image(axes[-1, column], example, "gray")
        for spine in axes[-1, column].spines.values():
            spine.set(visible=True, color=colour, linewidth=2.5)
        mark = "right" if predicted == person else f"wrong, is {person + 1}"
        axes[-1, column].set_title(f"person {predicted + 1}: {mark}", fontsize=8, color=colour, pad=3)

    captions = [
        "The edge's photographs\n(never sent)",
        *(f"Received by the cloud:\nchannel {channel} of mixed,\nshuffled rows" for channel in chosen),
        "Un-mixed on the edge:\nthe predicted person\n(a training photograph)",
    ]
    for axis, caption in zip(axes[:, 0], captions, strict=True):
        axis.annotate(caption, (-0.12, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=8.5)
    figure.text(
        0.5,
        0.918,
        f"Groups of {group_size}, one fresh key for each request. Received rows are shuffled, "
        "and do not belong to the columns above them.",
        ha="center",
        fontsize=8.5,
        color="#555555",
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    plt.close(figure)


def _image(axis: Axes, values: np.ndarray, colours: str, limit: float | None = None) -> None:
    low, high = (0.0, 1.0) if limit is None else (-limit, limit)
    axis.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect="auto")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set_visible(False)
