"""From photographs to the network's input, with and without random changes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["MEAN", "STD", "augment", "normalise"]

#: Of the pixels of grey faces, about, from 0 to 1.
MEAN, STD = 0.5, 0.25

# Faces stay faces under small changes only; larger ones cost accuracy on the validation split.
MAX_ANGLE = 0.12  # radians
MAX_ZOOM = 0.08
MAX_SHIFT = 0.1  # of half the image
MAX_CONTRAST = 0.2
MAX_BRIGHTNESS = 0.1


def normalise(images: Tensor) -> Tensor:
    """Bring images [B, C, H, W] from 0..1 to about zero mean and unit variance."""
    return (images - MEAN) / STD


def augment(images: Tensor) -> Tensor:
    """Mirror, turn, zoom, shift and re-light images [B, C, H, W] at random, each by its own draw.

    Draws come from PyTorch's global generator.
    """
    batch = images.shape[0]

    def draw(limit: float) -> Tensor:
        return (2 * torch.rand(batch) - 1) * limit

    angle, zoom = draw(MAX_ANGLE), 1 + draw(MAX_ZOOM)
    mirror = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    rows = (
        torch.stack((mirror * zoom * angle.cos(), -zoom * angle.sin(), draw(MAX_SHIFT)), dim=1),
        torch.stack((mirror * zoom * angle.sin(), zoom * angle.cos(), draw(MAX_SHIFT)), dim=1),
    )
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (1 + draw(MAX_CONTRAST)).view(-1, 1, 1, 1), draw(MAX_BRIGHTNESS).view(-1, 1, 1, 1)
    return (moved - 0.5) * contrast + 0.5 + brightness
