"""In one picture: photographs, what the edge makes of them, what the cloud receives, what comes out."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facemix.pictures import COLUMNS, Line, draw_lines

__all__ = ["draw_changed", "draw_examples"]

TITLE_WIDTH, TITLE_LINES = 19, 4  # characters, and lines of them


def draw_examples(
    path: Path, images: Tensor, features: Tensor, mixed: Tensor, labels: Sequence[str], predicted: Sequence[str]
) -> None:
    """Write a PNG of the first rows of one group, S >= 1.

    Args:
        path: of the PNG.
        images: uint8 [S, C, H, W], C = 1 or 3.
        features: [S, c, h, w], what the edge's first part makes of them.
        mixed: [S, c, h, w], the same mixed, as the cloud receives it.
        labels: what is true of each image, in words.
        predicted: what the network says of it, in words.
    """
    shown = slice(min(COLUMNS, len(images)))
    # The channel that varies most shows most; one scale, so that the lines can be compared.
    channel = int(features.float().std((0, 2, 3), correction=0).argmax())
    plain, received = (values[shown, channel].float().cpu().numpy() for values in (features, mixed))
    limit = float(np.quantile(np.abs(np.concatenate([plain, received])), 0.99)) or 1.0
    photographs = _photographs(images[shown])
    said, right = _judged(labels[shown], predicted[shown])
    lines = [
        Line("The edge's photographs\n(never sent)", photographs, titles=list(map(_wrapped, labels[shown]))),
        Line(f"Behind the edge's\nfirst part: channel {channel}\n(never sent)", list(plain), limit),
        Line(f"Received by the cloud:\nchannel {channel} of mixed rows", list(received), limit),
        Line("Un-mixed on the edge:\nwhat the network says", photographs, titles=said, right=right),
    ]
    note = f"{len(photographs)} of a group of {len(images)}. What is received does not belong to the columns above it."
    draw_lines(path, "facemix: a group, and what the cloud receives of it", note, lines)


def draw_changed(path: Path, images: Tensor, sent: Tensor, labels: Sequence[str], predicted: Sequence[str]) -> None:
    """Write a PNG of the first of some images that the cloud receives one by one.

    Args:
        path: of the PNG.
        images, sent: uint8 [N, C, H, W], C = 1 or 3: as photographed, and as the cloud receives them.
        labels, predicted: of each image, in words: what is true, and what the network says.
    """
    shown = slice(min(COLUMNS, len(images)))
    said, right = _judged(labels[shown], predicted[shown])
    lines = [
        Line(
            "The edge's photographs\n(never sent)",
            _photographs(images[shown]),
            titles=list(map(_wrapped, labels[shown])),
        ),
        Line("Received by the cloud,\nwhich says:", _photographs(sent[shown]), titles=said, right=right),
    ]
    draw_lines(path, "facemix: images that are not mixed", "What is received belongs to the image above it.", lines)


def _photographs(images: Tensor) -> list[NDArray[np.uint8]]:
    return list(images.cpu().permute(0, 2, 3, 1).squeeze(-1).numpy())


def _judged(labels: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], list[bool]]:
    """What is said of each image, and whether it is right."""
    right = [said == true for said, true in zip(predicted, labels, strict=True)]
    return [
        _wrapped(f"{text}: {'right' if hit else 'wrong'}") for text, hit in zip(predicted, right, strict=True)
    ], right


def _wrapped(text: str) -> str:
    return textwrap.fill(text, TITLE_WIDTH, max_lines=TITLE_LINES, placeholder=" ...")
