"""From photographs to the network's input, with and without random changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from facemix.training.settings import Changes

__all__ = ["DRAWS", "MEAN", "STD", "change", "normalise"]

#: Random numbers that `change` takes for an image: of rotation, scale, vertical and horizontal shift, mirror, contrast
#: and brightness.
DRAWS = 7

#: Of the pixels of grey faces, about, from 0 to 1.
MEAN, STD = 0.5, 0.25


def normalise(images: Tensor) -> Tensor:
    """Bring images [B, C, H, W] from 0..1 to about zero mean and unit variance."""
    return (images - MEAN) / STD


def channels_last(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bring images [B, C, H, W] into the form in which a camera gives them: contiguous [B, H, W, C]."""
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1))


def change(images: Tensor, draws: Tensor, changes: Changes) -> Tensor:
    """Turn, resize, move, mirror and re-light each image, as far as its draws say.

    Args:
        images: float [B, C, H, W], B at least 1, from 0 to 1. What comes in has the colour of the nearest edge.
        draws: [B, 7], from -1 to 1, see `DRAWS`: shares of the limits; an image is mirrored where its draw is negative.
        changes: the limits.

    Returns:
        A tensor like `images`; contrast and brightness may bring values beyond 0 and 1. What `changes` does not name
        stays as it is, to the bit.
    """
    angle, scale, down, right, mirror, contrast, brightness = draws.to(images).unbind(1)
    if changes.rotation or changes.scale or changes.shift or changes.mirror:
        images = _moved(
            images,
            angle * changes.rotation,
            1 + scale * changes.scale,
            (down * changes.shift, right * changes.shift),
            torch.where(mirror < 0, -1.0, 1.0) if changes.mirror else torch.ones_like(mirror),
        )
    if changes.contrast:
        images = (images - 0.5) * (1 + contrast * changes.contrast).view(-1, 1, 1, 1) + 0.5
    if changes.brightness:
        images = images + (brightness * changes.brightness).view(-1, 1, 1, 1)
    return images


def _moved(images: Tensor, angle: Tensor, scale: Tensor, shift: tuple[Tensor, Tensor], mirror: Tensor) -> Tensor:
    """`angle` clockwise, in radians; `shift` down and to the right, as shares of the sides; `mirror`: -1 or 1; all [B].

    For each place in the result, where in the image it comes from: the shift undone first, then the turn and the
    scale, then the mirror. Coordinates run from -1 to 1 along each side, which is why the sides' ratio comes in.
    """
    height, width = images.shape[2:]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    down, right = 2 * shift[0], 2 * shift[1]
    ratio = height / width
    x = torch.stack((mirror * cos, mirror * sin * ratio, -mirror * (cos * right + sin * ratio * down)), 1)
    y = torch.stack((-sin / ratio, cos, sin / ratio * right - cos * down), 1)
    with torch.autocast(images.device.type, enabled=False):  # in 16 bits places would be off by pixels
        grid = F.affine_grid(torch.stack((x, y), 1), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
