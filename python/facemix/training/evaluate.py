"""Accuracy, without the mix and through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facemix.data import Faces, normalise

__all__ = ["accuracy", "predict"]


def predict(model: nn.Module, images: Tensor, group_size: int = 1, batch_size: int = 64) -> Tensor:
    """Return the class, int64 [N], of each of `images` [N, C, H, W] (values 0 to 1).

    Args:
        model: a plain model, or a converted one, which mixes with fresh keys. Left in eval mode.
        group_size: of a converted model. Rows are visited in a random order (PyTorch's global generator), so
            that groups are random too, and the last batch is filled with images of the start.
        batch_size: rounded up to a multiple of `group_size`.
    """
    model.eval()
    count = len(images)
    batch_size = -(-batch_size // group_size) * group_size
    order = torch.randperm(count) if group_size > 1 else torch.arange(count)
    filled = torch.arange(-(-count // group_size) * group_size) % max(count, 1)
    classes = torch.empty(count, dtype=torch.int64)
    with torch.inference_mode():
        for rows in order[filled].split(batch_size):
            classes[rows] = model(normalise(images[rows])).argmax(1)
    return classes


def accuracy(model: nn.Module, faces: Faces, group_size: int = 1) -> float:
    """Return the share, 0 to 1, of `faces` whose identity `predict` finds."""
    return (predict(model, faces.images, group_size) == faces.identity).float().mean().item()
