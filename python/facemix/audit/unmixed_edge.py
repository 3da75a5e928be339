"""Edges that mix nothing: the paper's baselines, see `facemix.protections`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from facemix.edge.torch_half import TorchHalf
from facemix.protections import given, repeatable

from .request import Request, Secrets, Truth, unpacked

__all__ = ["UnmixedEdge"]


class UnmixedEdge:
    """An edge that sends what its first part makes of each image, in the order of the images.

    Args:
        half: the edge's half of a network, of group size 1.

    Attributes:
        group_size: 1.
    """

    group_size = 1

    def __init__(self, half: TorchHalf) -> None:
        self._half = half
        height, width, channels = half.bundle.image_shape
        self._changes_images = half.bundle.features_shape == (channels, height, width)

    def clean(self, images: Tensor) -> Tensor:
        """See `Edge`: the images as the network takes them; where it sends no images, the first part's output."""
        x = self._inputs(images)
        return x if self._changes_images else self._first(x)

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        """See `Edge`. Noise is the only secret, and takes the place of blinders."""
        blinders = None if reuse is None else reuse.blinders
        with repeatable(generator) if blinders is None else given(blinders):
            received = unpacked(self._first(self._inputs(images)), self._half.bundle)
        count = torch.arange(len(images))
        return Request(received, Truth(self.clean(images), count, torch.eye(len(images), dtype=torch.float64), count))

    def _inputs(self, images: Tensor) -> Tensor:
        return self._half.inputs(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))

    def _first(self, x: Tensor) -> Tensor:
        with torch.no_grad():  # not inference mode, whose tensors no attack could train on
            return self._half.first(x)
