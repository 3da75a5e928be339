"""Photographs, rows and what attacks recovered, as pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemix.data import Labelled
from facemix.pictures import COLUMNS, Line

from .matching import correlation, matched
from .request import Request
from .scene import Scene

__all__ = ["compared", "photographs", "rows_as_sent"]


def compared(scene: Scene, rows: Tensor, request: Request, found: Mapping[str, Tensor]) -> tuple[Line, ...]:
    """Photographs, the first part's output, what of the sent rows is most like it, and what was found; of the last two
    also what a `Decoder` makes of them, which shows to eyes what features show to programs.

    Args:
        rows: int64 [N], the victims of `request`.
        found: lines to add, by caption: recovered rows [m, c, h, w], in any order, of any sign and size.
    """
    sources = request.truth.sources[:COLUMNS]
    channel = int(sources.var((2, 3)).mean(0).argmax())
    lines = [
        photographs("photographs", scene.victims, rows[request.truth.image[:COLUMNS]]),
        Line("their features", _pictures(sources, sources, channel)),
    ]
    decoder = scene.decoder if len(request.truth.image.unique()) == len(request.truth.image) else None
    for caption, candidates in {"the most similar\nrow that was sent": request.received, **found}.items():
        likeness = correlation(sources, candidates)
        which, _ = matched(likeness.abs())
        sign = likeness[torch.arange(len(sources)), which].sign().float() * (which >= 0)  # no match: grey
        chosen = candidates[which] * sign[:, None, None, None]
        lines.append(Line(caption, _pictures(chosen, sources, channel)))
        if decoder is not None:
            lines.append(Line(f"{caption},\nas a photograph", [_picture(image) for image in decoder(chosen).numpy()]))
    return tuple(lines)


def _pictures(rows: Tensor, sources: Tensor, channel: int) -> list[NDArray[np.generic]]:
    """One channel of each row, with the brightness and the contrast of its source."""
    pictures: list[NDArray[np.generic]] = []
    for row, source in zip(rows[:, channel].cpu(), sources[:, channel].cpu(), strict=True):
        low, high = float(source.min()), float(source.max())
        known = (row - row.mean()) / row.std().clamp(min=1e-12) * source.std() + source.mean()
        pictures.append(((known - low) / max(high - low, 1e-12)).clamp(0, 1).numpy())
    return pictures


def photographs(caption: str, faces: Labelled, numbers: Tensor) -> Line:
    """Photographs of `faces`, by number: int64 [N]."""
    return Line(caption, [_picture(faces.images[number]) for number in numbers.tolist()])


def rows_as_sent(caption: str, received: Tensor) -> Line:
    """Received rows float32 [N, c, h, w]: changed photographs from dark to light, features around zero, of which the
    channel is shown that varies most."""
    if received.shape[1] in (1, 3):
        low, high = float(received.min()), float(received.max())
        return Line(caption, [_picture(row) for row in (received.numpy() - low) / max(high - low, 1e-12)])
    channel = received[:, int(received.var((0, 2, 3)).argmax())].numpy()
    return Line(caption, list(channel), limit=float(np.abs(channel).max()))


def _picture(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """[C, H, W] -> [H, W], or [H, W, 3]."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
