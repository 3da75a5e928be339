"""Shapes with soft edges, painted over one another: what the cartoon faces are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Canvas", "Shape", "arc", "box", "dots", "ellipse", "stroke"]

#: From coordinates x, y [n, h, W] to how far outside a shape they are, about; negative inside.
Shape = Callable[[Tensor, Tensor], Tensor]


class Canvas:
    """n pictures of one size, painted on together.

    Coordinates run from -1 to 1, to the right and down, over what a picture shows when it is neither moved nor turned.

    Attributes:
        pixels: float32 [n, C, H, W].

    Args:
        size: (height, width).
        colour: of the background, [n, C, 1, 1].
        shift: [n, 2], right and down.
        angle: [n], radians; small.
        zoom: [n], around 1.
    """

    def __init__(self, size: tuple[int, int], colour: Tensor, shift: Tensor, angle: Tensor, zoom: Tensor) -> None:
        height, width = size
        right, down = torch.linspace(-1, 1, width), torch.linspace(-1, 1, height)[:, None]
        cos, sin = (angle.cos() / zoom).view(-1, 1, 1), (angle.sin() / zoom).view(-1, 1, 1)
        self.x = right * cos + down * sin - shift[:, 0, None, None]
        self.y = down * cos - right * sin - shift[:, 1, None, None]
        self.pixels = colour.expand(-1, -1, height, width).clone()
        self._low, self._high = self.y.amin((0, 2)), self.y.amax((0, 2))
        self._sharpness = min(size) / 2  # an edge is about a pixel wide

    def paint(self, top: float, bottom: float, shape: Shape, colour: Tensor, opacity: Tensor | float = 1.0) -> None:
        """Paint a shape between the heights `top` and `bottom`: nothing outside is touched, which saves time.

        Args:
            colour: [n or 1, C, 1, 1].
            opacity: [n, 1, 1], from 0, which leaves a picture as it is, to 1.
        """
        rows = torch.nonzero((self._high > top) & (self._low < bottom)).flatten().tolist()
        if not rows:
            return
        place = slice(rows[0], rows[-1] + 1)
        x, y = self.x[:, place], self.y[:, place]
        outside = torch.maximum(shape(x, y), torch.maximum(top - y, y - bottom))
        cover = outside.mul_(-self._sharpness).add_(0.5).clamp_(0, 1).mul_(opacity)
        self.pixels[:, :, place].lerp_(colour, cover.unsqueeze(1))


def ellipse(x: Tensor, y: Tensor, radius_x: Tensor | float, radius_y: Tensor | float) -> Tensor:
    """Around the origin."""
    return (((x / radius_x) ** 2 + (y / radius_y) ** 2).sqrt_() - 1) * ((radius_x + radius_y) / 2)


def box(x: Tensor, y: Tensor, half_width: Tensor | float, half_height: Tensor | float) -> Tensor:
    """Around the origin."""
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def stroke(outside: Tensor, half_width: Tensor | float) -> Tensor:
    """The outline of a shape."""
    return outside.abs() - half_width


def arc(x: Tensor, y: Tensor, bend: Tensor | float, half_width: Tensor | float, half_height: Tensor | float) -> Tensor:
    """The parabola y = bend * x^2: ends up where `bend` is negative."""
    return torch.maximum(stroke(y - bend * x**2, half_height), x.abs() - half_width)


def dots(x: Tensor, y: Tensor, half_width: float) -> Tensor:
    """A pattern of dots, a tenth apart."""
    return torch.maximum((0.3 - torch.cos(32 * x) * torch.cos(32 * y)) / 32, x.abs() - half_width)
