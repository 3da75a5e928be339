"""Photographs from what an edge's first part makes of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facemix.data import Labelled

from .edge import Edge

__all__ = ["Decoder"]

WINDOW = 3  # rows and columns of features that a piece of the photograph is told from
RIDGE = 1e-3  # of the mean energy of a feature
FACES, WINDOWS = 256, 2**18  # to learn from, at most


class Decoder:
    """The linear map from a window of features to the piece of the photograph that they come from, by ridge regression
    (Hoerl and Kennard 1970) on photographs of the attacker's own. Whoever has the edge's software can learn it.

    Args:
        edge: its first part is undone.
        faces: photographs to learn from, at least one.

    Raises:
        ValueError: if the edge makes several sources of an image.
    """

    def __init__(self, edge: Edge, faces: Labelled) -> None:
        one = edge.clean(torch.from_numpy(np.array(faces.images[:1])))
        if len(one) != 1:
            raise ValueError(f"Decoder: edge must have one source for each image, got {len(one)}")
        images = torch.from_numpy(np.array(faces.images[: min(FACES, -(-WINDOWS // one[0, 0].numel()))]))
        sources = edge.clean(images)
        self._shape, size = images.shape[1:], sources.shape[2:]
        self._scale = max(-(-side // small) for side, small in zip(self._shape[1:], size, strict=True))
        fine = F.interpolate(images.float() / 255, [side * self._scale for side in size], mode="bilinear")
        pieces = F.pixel_unshuffle(fine, self._scale).flatten(2).transpose(1, 2)
        square = product = torch.zeros((), dtype=torch.float64)
        for source, piece in zip(sources, pieces, strict=True):  # one after another: windows take much memory
            window = _windows(source[None])
            square, product = square + (window.T @ window).double(), product + (window.T @ piece).double()
        square.diagonal().add_(RIDGE * square.diagonal().mean())
        self._map = torch.linalg.solve(square, product).float()
        self._spread, self._mean = float(sources.std()), float(sources.mean())

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 [n, c, h, w] of unknown sign and size -> photographs float32 [n, C, H, W], from 0 to 1.

        A row takes the spread of the attacker's own features, and the sign that gives its mean theirs.
        """
        sign = torch.where(rows.mean((1, 2, 3)) * self._mean < 0, -1.0, 1.0)
        known = rows * (sign * self._spread / rows.std((1, 2, 3)).clamp(min=1e-12))[:, None, None, None]
        count, (height, width) = len(rows), rows.shape[2:]
        pieces = (_windows(known) @ self._map).view(count, height * width, -1).transpose(1, 2)
        fine = F.pixel_shuffle(pieces.reshape(count, -1, height, width), self._scale)
        return F.interpolate(fine, list(self._shape[1:]), mode="bilinear").clamp(0, 1)


def _windows(rows: Tensor) -> Tensor:
    """[n, c, h, w] -> float32 [n * h * w, WINDOW^2 * c + 1], a one at the end."""
    padded = F.pad(rows, [WINDOW // 2] * 4, mode="replicate")
    found = F.unfold(padded, WINDOW).transpose(1, 2).flatten(0, 1)
    return torch.cat((found, torch.ones(len(found), 1)), 1)
