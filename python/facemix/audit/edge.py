"""Edges to attack. They do what the edge in a file does, but with seeded keys, so that an audit can be repeated."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import facemix_ops as fo
from facemix.edge import load_half
from facemix.edge.blinding import Blinding
from facemix.edge.torch_bundle import TorchBundle
from facemix.edge.torch_half import TorchHalf
from facemix_ops.edge import Bundle, EdgeModel, kernels
from facemix_ops.edge.wire import WIRE_DTYPES
from facemix_ops.rules import check_max_coeff

from .request import Request, Secrets, Truth, unpacked
from .unmixed_edge import UnmixedEdge

__all__ = ["Edge", "MixingEdge", "load_edge"]


class Edge(Protocol):
    """What an audit needs of an edge.

    Attributes:
        group_size: images in a group; 1: nothing is mixed.
    """

    group_size: int

    def clean(self, images: Tensor) -> Tensor:
        """Images uint8 [N, C, H, W] -> sources float32 [n, c, h, w], n a multiple of N: see `Truth`."""
        ...

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        """One request.

        Args:
            images: uint8 [N, C, H, W], whole groups.
            generator: of every secret, on the CPU.
            reuse: secrets of an earlier request, in place of new ones.
        """
        ...


class MixingEdge:
    """An edge that mixes and shuffles.

    Args:
        half: the edge's half of a network.
        max_coeff: bound on the coefficients; default: the half's own.
        blinding: one-time rows that are added to those that are sent; None: none are.

    Attributes:
        group_size: S.
        max_coeff, blinding: see above.
    """

    def __init__(
        self, half: EdgeModel | TorchHalf, max_coeff: float | None = None, blinding: Blinding | None = None
    ) -> None:
        self._half = half
        self.group_size = half.bundle.group_size
        self.max_coeff = half.bundle.max_coeff if max_coeff is None else max_coeff
        self.blinding = blinding

    def clean(self, images: Tensor) -> Tensor:
        """See `Edge`: the first part's output, a row an image, or one for each of its patches."""
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        if isinstance(self._half, TorchHalf):
            with torch.no_grad():  # not inference mode, whose tensors no attack could train on
                return self._half.first(self._half.inputs(pixels))
        return _first_part(self._half, pixels)

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        """See `Edge`."""
        reuse = reuse or Secrets()
        sources = self.clean(images)
        count = len(sources)
        key = reuse.key
        if key is None:
            key = fo.MixKey.sample(count, self.group_size, max_coeff=self.max_coeff, generator=generator)
        place = torch.randperm(count, generator=generator)  # source n is in row place[n] before the mix
        x = torch.empty_like(sources)
        x[place] = sources
        rows = torch.arange(count).view(-1, self.group_size)  # of x, group by group
        mixed = torch.zeros(count, count, dtype=torch.float64)  # of x, before the shuffle
        mixed[rows[:, :, None], rows[:, None, :]] = key.coeffs
        weights, group = torch.empty_like(mixed), torch.empty(count, dtype=torch.int64)
        weights[key.order] = mixed[:, place]
        group[key.order] = torch.arange(count) // self.group_size
        received = unpacked(fo.group_mix(x, key), self._half.bundle)
        if self.blinding is not None:
            blinders = reuse.blinders
            if blinders is None:
                blinders = self.blinders(count // self.group_size, generator)
            self.blinding.scale(received.numpy(), self.blinding.share)
            weights *= self.blinding.share
            received[key.order] += blinders.flatten(0, 1)
        image = torch.arange(len(images)).repeat_interleave(count // len(images))
        return Request(received, Truth(sources, image, weights, group))

    def blinders(self, groups: int, generator: torch.Generator) -> Tensor:
        """Fresh ones, see `Secrets`: one for each row that is sent. Of an edge that has `blinding`."""
        assert self.blinding is not None
        shape = (groups, self.group_size, *self._half.bundle.features_shape)
        noise = torch.randn(shape, generator=generator)
        self.blinding.scale(noise.numpy(), self.blinding.level)
        return noise


def load_edge(
    path: str | os.PathLike[str],
    *,
    max_coeff: float | None = None,
    blinding: Blinding | None = None,
    wire_dtype: str | None = None,
) -> Edge:
    """The edge in a file of `facemix train`, of `facemix.export.export_edge` or of `export_edge_torch`.

    Args:
        path: of the file.
        max_coeff, blinding: see `MixingEdge`; not for an edge that mixes nothing.
        wire_dtype: what is sent, see `facemix_ops.edge.EdgeModel.mix`; default: what the file says. With blinding it is
            float32.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        BundleError: a ValueError; see `facemix.edge.load_half`.
        ValueError: if max_coeff is too low for the edge's groups, or above 1; or something is asked of the mix of an
            edge that mixes nothing; or the edge cannot send `wire_dtype`.
    """
    half = load_half(path)
    half.bundle = replace(half.bundle, wire_dtype=_wire_dtype(half.bundle, wire_dtype, blinding))
    if half.bundle.group_size > 1:
        check_max_coeff("load_edge", max_coeff, half.bundle.group_size)
        return MixingEdge(half, max_coeff, blinding)
    assert isinstance(half, TorchHalf)  # the other kind always mixes
    for name, value in (("max_coeff", max_coeff), ("blinding", blinding)):
        if value is not None:
            raise ValueError(f"load_edge: {name} must not be given for an edge that mixes nothing, got {value}")
    return UnmixedEdge(half)


def _wire_dtype(bundle: Bundle | TorchBundle, asked: str | None, blinding: Blinding | None) -> str:
    own, names = bundle.wire_dtype, [name for name in WIRE_DTYPES if name != "int8" or bundle.scales is not None]
    if blinding is not None:
        own, names = "float32", ["float32"]
    wire_dtype = own if asked is None else asked
    if wire_dtype not in names:
        rule = f"wire_dtype of this edge must be {' or '.join(names)}{' with blinding' * (blinding is not None)}"
        raise ValueError(f"load_edge: {rule}, got {wire_dtype!r}")
    return wire_dtype


def _first_part(half: EdgeModel, pixels: Any) -> Tensor:
    """The kernels' own first part of images uint8 [N, H, W, C], each in a group of its own, times 1."""
    count = len(pixels)
    features = np.empty((count, *half.bundle.features_shape), np.float32)
    no_mix: Any = SimpleNamespace(coeffs=np.ones((count, 1, 1)), order=np.arange(count))
    x = half._features(pixels, [], np.arange(count))
    kernels.conv_mix(half.bundle, (half.bundle.weight, half.bundle.bias), x, no_mix, features, 1)
    return torch.from_numpy(features)
