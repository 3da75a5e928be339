"""What the cloud receives, and the truth behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import facemix_ops as fo
from facemix.edge.torch_bundle import TorchBundle
from facemix_ops.edge import Bundle
from facemix_ops.edge.wire import LARGEST

__all__ = ["Request", "Secrets", "Truth", "numbered", "unpacked"]


@dataclass(frozen=True, eq=False)
class Truth:
    """What an attack is scored by. No attack may look at it before it has its answer.

    Attributes:
        sources: float32 [n, c, h, w], what an edge without any protection would have sent, in the order of the images:
            the first part's output; of an edge that only changes images, the images themselves.
        image: int64 [n], of which image, 0 to N - 1, each source is: 0, 1, ... unless an image has several.
        weights: float64 [b, n], ``received[b] = sum_n weights[b, n] * sources[n]``, but for the rounding of the wire
            dtype, plus what was added to hide it.
        group: int64 [b], a number for each group of received rows: those that mix the same sources.
    """

    sources: Tensor
    image: Tensor
    weights: Tensor
    group: Tensor

    @property
    def group_of_source(self) -> Tensor:
        """int64 [n], the group that each source is in."""
        return self.group[(self.weights != 0).int().argmax(0)]


@dataclass(frozen=True, eq=False)
class Request:
    """One request.

    Attributes:
        received: float32 [b, c, h, w], all that the cloud gets, as it unpacks it.
        truth: see there.
    """

    received: Tensor
    truth: Truth


@dataclass(frozen=True, eq=False)
class Secrets:
    """What an edge draws for one request, to be used a second time on purpose: that is how an attack shows what reuse
    costs. Only what is not None is reused.

    Attributes:
        key: coefficients and order of the mix.
        blinders: float32 [G, S, c, h, w], one for each row that is sent, group by group: what is added to it. Zeros of
            fewer rows, or smaller, stand for as many as are needed.
    """

    key: fo.MixKey | None = None
    blinders: Tensor | None = None


def unpacked(rows: Tensor, bundle: Bundle | TorchBundle) -> Tensor:
    """Rows float32 [b, c, h, w] as the cloud unpacks them from the bundle's wire dtype, float32."""
    if bundle.wire_dtype != "int8":
        return rows.to(getattr(torch, bundle.wire_dtype)).float()
    scales = torch.tensor(bundle.scales).view(-1, 1, 1)
    return (rows / scales).round_().clamp_(-LARGEST, LARGEST) * scales


def numbered(groups: Iterable[Tensor]) -> NDArray[np.int64]:
    """The groups [b] of several requests, one request after another, with a number of its own for each group."""
    found: list[Tensor] = []
    for group in groups:
        found.append(group - group.min() + (found[-1].max() + 1 if found else 0))
    return torch.cat(found).numpy()
