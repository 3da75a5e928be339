"""Images cut into patches that are mixed apart, each a row of its own, and what is put together again after them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PatchMean", "Patches"]


class Patches(nn.Module):
    """Cut [B, C, H, W] into `side` x `side` patches: [B * side^2, C, ceil(H / side), ceil(W / side)], an image's rows
    one after the other. Zeros fill up what does not divide.

    Raises:
        ValueError: in `forward`, if there are more patches than pixels on a side.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        if self.side > min(height, width):
            raise ValueError(f"Patches: patches must be no more than pixels, {height} x {width}, got {self.side}")
        x = F.pad(x, (0, -width % self.side, 0, -height % self.side))
        x = x.reshape(batch, channels, self.side, x.shape[2] // self.side, self.side, x.shape[3] // self.side)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


class PatchMean(nn.Module):
    """[B * side^2, ...] -> [B, ...], the mean over each image's patches."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, self.side**2)).mean(1)
