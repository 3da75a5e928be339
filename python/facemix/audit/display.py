"""Pictures of what an attack recovered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from facemix.pictures import COLUMNS, Line

from .matching import correlation, matched
from .request import Request
from .scene import Scene

__all__ = ["compared"]


def compared(scene: Scene, rows: Tensor, request: Request, found: Mapping[str, Tensor]) -> tuple[Line, ...]:
    """Photographs, the first part's output, what of the sent rows is most like it, and what was found.

    Args:
        rows: int64 [N], the victims of `request`.
        found: lines to add, by caption: recovered rows [m, c, h, w], in any order, of any sign and size.
    """
    sources = request.truth.sources[:COLUMNS]
    channel = int(sources.var((2, 3)).mean(0).argmax())
    images = np.asarray(scene.victims.images[rows[request.truth.image[:COLUMNS]].numpy()])
    photographs = [image.transpose(1, 2, 0) if len(image) == 3 else image[0] for image in images]
    lines = [Line("photographed", photographs), Line("before the mix", _pictures(sources, sources, channel))]
    for caption, candidates in {"sent, the most like it": request.received, **found}.items():
        likeness = correlation(sources, candidates)
        which, _ = matched(likeness.abs())
        sign = likeness[torch.arange(len(sources)), which].sign().float() * (which >= 0)  # no match: grey
        lines.append(Line(caption, _pictures(candidates[which] * sign[:, None, None, None], sources, channel)))
    return tuple(lines)


def _pictures(rows: Tensor, sources: Tensor, channel: int) -> list[NDArray[np.generic]]:
    """One channel of each row, with the brightness and the contrast of its source."""
    pictures: list[NDArray[np.generic]] = []
    for row, source in zip(rows[:, channel].cpu(), sources[:, channel].cpu(), strict=True):
        low, high = float(source.min()), float(source.max())
        known = (row - row.mean()) / row.std().clamp(min=1e-12) * source.std() + source.mean()
        pictures.append(((known - low) / max(high - low, 1e-12)).clamp(0, 1).numpy())
    return pictures
