"""Additive noise (paper, section 4, "Adding Noise")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gaussian import gaussian

__all__ = ["Noise"]

WHITE = 255


class Noise(nn.Module):
    """Images [B, C, H, W] plus N(0, sigma^2), drawn anew for every value of every call; nothing is rounded or cut off.

    While it trains, noise is from PyTorch's generator; in eval mode from the operating system, see `repeatable`.

    Args:
        sigma: standard deviation, on the scale of pixels from 0 to 255. The paper prints N(0, 4) and N(0, 8) without
            a scale, which is hardly this one (docs/baselines.md).
        std: what images were divided by: one unit of the network's input is `std` of the way from black to white.

    Raises:
        ValueError: if either is not positive.
    """

    def __init__(self, sigma: float, std: float) -> None:
        super().__init__()
        for name, value in (("sigma", sigma), ("std", std)):
            if not value > 0:
                raise ValueError(f"Noise: {name} must be positive, got {value}")
        self.scale = sigma / (WHITE * std)

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn_like(x) if self.training else gaussian(x)
        return x + self.scale * noise
