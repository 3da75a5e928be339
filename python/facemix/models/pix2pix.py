"""Networks that turn images into images, and one that judges them: pix2pix (Isola et al. 2017), with the generator of
residual blocks that Johnson et al. (2016) describe and Zhu et al. (2017, CycleGAN) use.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .checks import check_counts

__all__ = ["Generator", "PatchDiscriminator"]

SPREAD = 0.02  # of the first weights: N(0, SPREAD^2), as in the papers
SMALLEST = 5  # pixels: a quarter of it, rounded up, is the least that can be padded by reflection


class Generator(nn.Module):
    """Images [B, in_channels, H, W] -> images [B, out_channels, H, W] with values from -1 to 1; H and W are any >= 5.

    Two convolutions of stride 2, residual blocks at a quarter of the size, two transposed convolutions, and instance
    norms. 11.378 million parameters from 3 channels to 3.

    Args:
        in_channels, out_channels: of the images.
        width: channels at full size; a quarter of the size has four times as many.
        blocks: residual blocks; 9 in the papers, for images of 256x256.

    Raises:
        ValueError: if one of them is not positive; in `forward`, if an image is too small.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        check_counts("Generator", in_channels=in_channels, out_channels=out_channels, width=width, blocks=blocks)
        self.down = nn.Sequential(
            *_convolution(in_channels, width, 7),
            *_convolution(width, 2 * width, 3, stride=2),
            *_convolution(2 * width, 4 * width, 3, stride=2),
        )
        self.blocks = nn.Sequential(*(_Residual(4 * width) for _ in range(blocks)))
        self.up = nn.Sequential(*_doubling(4 * width, 2 * width), *_doubling(2 * width, width))
        self.last = nn.Conv2d(width, out_channels, 7, padding=3, padding_mode="reflect")
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < SMALLEST:
            raise ValueError(f"Generator: images must have at least {SMALLEST}x{SMALLEST} pixels, got {height}x{width}")
        # Sides that 4 does not divide were rounded up on the way down.
        x = self.up(self.blocks(self.down(x)))[..., :height, :width]
        return torch.tanh(self.last(x))


class PatchDiscriminator(nn.Module):
    """Images [B, in_channels, H, W] -> for each of many overlapping patches, how real it looks: [B, 1, h, w], any
    number. A patch has 70x70 pixels with 3 layers, 34x34 with 2, 16x16 with 1; an image must have 2^(layers + 2) or
    more on each side.

    Args:
        in_channels: of the images; of a conditional one, those of the condition as well.
        width: channels of the first convolution; each of stride 2 has twice as many as the one before, up to 8 times.
        layers: convolutions of stride 2.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for number in range(1, layers + 1):
            wider = width * min(2**number, 8)
            stride = 2 if number < layers else 1
            parts += [
                nn.Conv2d(channels, wider, 4, stride=stride, padding=1), nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2)
            ]  # fmt: skip
            channels = wider
        self.patches = nn.Sequential(*parts, nn.Conv2d(channels, 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.patches(x)


class _Residual(nn.Module):
    """[B, C, H, W] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(*_convolution(channels, channels, 3), *_convolution(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


def _convolution(in_channels: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # Reflection at full and at a quarter of the size, zeros where it strides: as in the papers' networks.
    mode: Literal["reflect", "zeros"] = "reflect" if stride == 1 else "zeros"
    return [
        nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, padding_mode=mode),
        nn.InstanceNorm2d(channels),
        nn.ReLU(),
    ]


def _doubling(in_channels: int, channels: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(in_channels, channels, 3, stride=2, padding=1, output_padding=1),
        nn.InstanceNorm2d(channels),
        nn.ReLU(),
    ]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
