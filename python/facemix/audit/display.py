"""Photographs and rows as pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from facemix.data import Labelled
from facemix.pictures import Line

__all__ = ["photographs", "rows_as_sent"]


def photographs(caption: str, faces: Labelled, numbers: Tensor) -> Line:
    """Photographs of `faces`, by number: int64 [N]."""
    return Line(caption, [_picture(faces.images[number]) for number in numbers.tolist()])


def rows_as_sent(caption: str, received: Tensor) -> Line:
    """Received rows float32 [N, c, h, w]; of several channels, but for colours, the one that varies most."""
    channel = received[:, int(received.var((0, 2, 3)).argmax())].numpy()
    if received.min() >= 0:  # photographs, or what is left of them
        shown = received.numpy() if received.shape[1] == 3 else channel[:, None]
        return Line(caption, [_picture(row) for row in shown / max(float(shown.max()), 1e-12)])
    return Line(caption, list(channel), limit=float(np.abs(channel).max()))


def _picture(image: NDArray[np.generic]) -> NDArray[np.generic]:
    """[C, H, W] -> [H, W], or [H, W, 3]."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
