"""Blurring (paper, section 4, "Blurring")."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Blur"]


class Blur(nn.Module):
    """Images [B, C, H, W] averaged down to `size` x `size` values, and drawn up to their size again (bilinear).

    Args:
        size: values on each side that are left: 16 and 8 in the paper's rows, whose photographs are 218 x 178. A
            smaller photograph loses less by the same size.

    Raises:
        ValueError: if `size` is not positive; in `forward`, if an image is no larger.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"Blur: size must be positive, got {size}")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) <= self.size:
            raise ValueError(f"Blur: images must be larger than {self.size} x {self.size}, got {height} x {width}")
        small = F.interpolate(x, (self.size, self.size), mode="area")
        return F.interpolate(small, (height, width), mode="bilinear", align_corners=False)
