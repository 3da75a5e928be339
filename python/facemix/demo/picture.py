"""The demo in one picture: who was asked about, what the cloud received, what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facemix.data import Labelled
from facemix.pictures import COLUMNS, Line, draw_lines

from .measure import Passage

__all__ = ["draw"]

CHANNELS = 3


def draw(path: Path, passage: Passage, train: Labelled, group_size: int, recovered: Sequence[Line] = ()) -> None:
    """Write a PNG: faces of a request, channels of rows that the cloud received, the people predicted; and what an
    attack recovered.

    Args:
        path: of the PNG.
        passage: of the mixing-aware network.
        train: where the pictures of predicted people come from.
        group_size: for the caption.
        recovered: lines of an attack, with photographs of its own.
    """
    identity = train.labels("identity")
    shown = slice(min(COLUMNS, len(passage.faces), *(len(line.pictures) for line in recovered)))
    pairs = list(zip(passage.predicted[shown].tolist(), passage.identity[shown].tolist(), strict=True))
    marks = ["right" if predicted == person else f"wrong, is {person + 1}" for predicted, person in pairs]
    # The channels that vary most show most; the same scale for all, centred on zero.
    spread = passage.received.std(axis=(0, 2, 3))
    channels = np.sort(np.argsort(spread)[::-1][:CHANNELS])
    lines = [
        Line("The edge's photographs\n(never sent)", list(passage.faces[shown, 0])),
        *(
            Line(
                f"Received by the cloud:\nchannel {channel} of mixed,\nshuffled rows",
                list(passage.received[shown, channel]),
                float(np.quantile(np.abs(passage.received[shown, channel]), 0.99)),
            )
            for channel in channels
        ),
        Line(
            "Un-mixed on the edge:\nthe predicted person\n(a training photograph)",
            [train.images[(identity == predicted).nonzero()[0, 0], 0] for predicted, _ in pairs],
            titles=[f"person {predicted + 1}: {mark}" for (predicted, _), mark in zip(pairs, marks, strict=True)],
            right=[predicted == person for predicted, person in pairs],
        ),
        *recovered,
    ]
    title = "facemix: what the edge sees, what the cloud receives, what comes out"
    draw_lines(
        path,
        f"{title}, what is recovered" if recovered else title,
        f"Groups of {group_size}, one fresh key for each request. Received rows are shuffled, "
        "and do not belong to the columns above them.",
        lines,
    )
