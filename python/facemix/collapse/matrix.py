"""One matrix, or the product of two thin ones, in the place of a network's middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import facemix_ops as fo
from facemix.edge.halves import last_half
from facemix.partition import Parts

from .jacobian import average_jacobian

__all__ = ["Matrix", "fitted", "through"]


@dataclass(frozen=True)
class Matrix:
    """What stands for the cloud part, and for the edge's last part too where that is one linear layer.

    Attributes:
        weight: [outputs, inputs]; inputs are the features of an image, flattened.
        offset: [outputs].
        mean: [outputs], of what it gives for the images that it was made with.
        directions: [outputs, outputs], orthogonal columns in which these outputs differ, from most to least.
        rest: what remains to be done: outputs [B, outputs] -> scores; nothing where they are the scores.
    """

    weight: Tensor
    offset: Tensor
    mean: Tensor
    directions: Tensor
    rest: nn.Sequential

    def outputs(self, features: Tensor) -> Tensor:
        """[B, outputs] of features [B, ...]."""
        return F.linear(features.flatten(1), self.weight, self.offset)

    def reduced(self, outputs: Tensor, rank: int) -> Tensor:
        """What the outputs [B, outputs] would be if the matrix were reduced to `rank`."""
        basis = self.directions[:, :rank]
        return self.mean + (outputs - self.mean) @ basis @ basis.T

    def module(self, rank: int | None = None) -> nn.Sequential:
        """As layers, features [B, ...] -> scores, reduced to `rank` where one is given."""
        if rank is None:
            return nn.Sequential(nn.Flatten(), _layer(self.weight, self.offset), self.rest)
        basis = self.directions[:, :rank]
        inner = _layer(basis.T @ self.weight, basis.T @ (self.offset - self.mean))
        return nn.Sequential(nn.Flatten(), inner, _layer(basis, self.mean), self.rest)


def fitted(parts: Parts, features: Tensor, key: fo.MixKey | None, progress: bool) -> Matrix:
    """The mean derivative of the cloud part at what it sees, and the mean of what is left.

    The derivative of an un-mixed output by the image's own features is a mean of the cloud's derivatives at the mixed
    rows, and over a group these means add up to all of them alike.

    Args:
        parts: in eval mode.
        features: [N, ...] of the edge's first part.
        key: that mixes them; None: they are sent as they are.
        progress: show a bar.
    """
    half = last_half(parts.edge_last)
    last = half if isinstance(half, fo.UnmixLinear) else None
    with torch.no_grad():
        sent = features if key is None else fo.group_mix(features, key)
        shape = parts.cloud(sent[:1]).shape[1:]
    if last is not None and (len(shape) != 1 or last.out_features > last.in_features):
        last = None

    def function(x: Tensor) -> Tensor:
        y = parts.cloud(x)
        return y.flatten(1) if last is None else F.linear(y, last.weight)

    weight = average_jacobian(function, sent, progress)
    with torch.no_grad():
        linear = features.flatten(1) @ weight.T
        mean = through(function, features, key).mean(0)
        if last is not None and last.bias is not None:
            mean = mean + last.bias
        centred = (linear - linear.mean(0)).double()
        if not bool(centred.isfinite().all()):
            raise ValueError("collapse: features and derivatives must be finite, got others: train the network anew")
        directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1).to(weight.dtype)
    rest = nn.Sequential() if last is not None else nn.Sequential(nn.Unflatten(1, shape), parts.edge_last)
    return Matrix(weight, mean - linear.mean(0), mean, directions, rest)


def through(function: Callable[[Tensor], Tensor], features: Tensor, key: fo.MixKey | None) -> Tensor:
    """`function` of the mixed features, un-mixed; of the features as they are where there is no key."""
    if key is None:
        return function(features)
    return fo.group_unmix(function(fo.group_mix(features, key)), key)


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.load_state_dict({"weight": weight, "bias": bias}, assign=True)
    return layer
