"""Parameters, multiply-adds and bytes of the three parts of a network, counted without computing anything; and the
seconds that they take on this machine.
"""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from facemix.partition import Parts, partition

__all__ = ["PartCost", "PartitionCost", "multiply_adds", "part_seconds", "partition_cost"]

FLOAT_BYTES = 4
ROUNDS = 5

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class PartCost:
    """What one part of a network costs for one image.

    Attributes:
        parameters: of all layers but batch norms, which are folded into the convolution before them; so the paper
            counts.
        multiply_adds: of convolutions and matrix products, as the paper counts "FLOPs"; all else is left out.
        output_shape: of what leaves it, for one image; where that is several rows, patches, they come first.
        output_channels: of all rows.
    """

    parameters: int
    multiply_adds: int
    output_shape: tuple[int, ...]
    output_channels: int

    @property
    def output_bytes(self) -> int:
        """In float32."""
        return FLOAT_BYTES * torch.Size(self.output_shape).numel()


@dataclass(frozen=True)
class PartitionCost:
    """The three parts, for one image.

    Attributes:
        image_shape: (channels, height, width).
        edge_first, cloud, edge_last: see `PartCost`.
        group_size: images in a group.
    """

    image_shape: tuple[int, int, int]
    edge_first: PartCost
    cloud: PartCost
    edge_last: PartCost
    group_size: int

    @property
    def edge_parameters(self) -> int:
        """Of both of the edge's parts."""
        return self.edge_first.parameters + self.edge_last.parameters

    @property
    def mix_multiply_adds(self) -> int:
        """Of the mix and the un-mix: each value that is sent or received is a sum over its group. In groups of 1 there
        is nothing to mix.
        """
        if self.group_size == 1:
            return 0
        sent, received = (torch.Size(part.output_shape).numel() for part in (self.edge_first, self.cloud))
        return self.group_size * (sent + received)

    @property
    def edge_multiply_adds(self) -> int:
        """Of both of the edge's parts and the mixing, as the paper counts."""
        return self.edge_first.multiply_adds + self.mix_multiply_adds + self.edge_last.multiply_adds

    @property
    def whole_multiply_adds(self) -> int:
        """Of the network in one piece."""
        return self.edge_first.multiply_adds + self.cloud.multiply_adds + self.edge_last.multiply_adds

    @property
    def edge_share(self) -> float:
        """What the edge computes, as a share of the network in one piece."""
        return self.edge_multiply_adds / max(self.whole_multiply_adds, 1)


def partition_cost(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    pre: int | str = 1,
    post: int | str = 1,
    group_size: int = 8,
) -> PartitionCost:
    """Count what each side of `model` costs for one image.

    Args:
        model: a plain network; it is copied without its weights, and nothing is computed.
        image_shape: (channels, height, width).
        pre, post: the cut, see `partition`.
        group_size: images in a group; 1 for none.

    Raises:
        ValueError: if `partition` refuses the cut, or the model the image.
    """
    if len(image_shape) != 3 or min(image_shape) < 1 or group_size < 1:
        raise ValueError(
            f"partition_cost: image_shape must be (channels, height, width) and group_size at least 1, "
            f"got {image_shape} and {group_size}"
        )
    parts = partition(copy.deepcopy(model).to("meta", torch.float32).eval(), pre, post)
    x = torch.zeros(1, *image_shape, device="meta")
    try:
        first, x = _count(parts.edge_first, x)
        cloud, x = _count(parts.cloud, x)
        last, _ = _count(parts.edge_last, x)
    except RuntimeError as error:  # PyTorch's own word for shapes that do not suit
        raise ValueError(
            f"partition_cost: the model must take images of image_shape, got {image_shape}: {error}"
        ) from error
    return PartitionCost(image_shape, first, cloud, last, group_size)


def multiply_adds(part: nn.Module, shape: tuple[int, ...]) -> int:
    """Of `part`, for one row of this shape, counted by running it."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        part(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def _count(part: nn.Module, x: Tensor) -> tuple[PartCost, Tensor]:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        y = part(x)
    layers = (module for module in part.modules() if not isinstance(module, NORMS))
    parameters = sum(parameter.numel() for layer in layers for parameter in layer.parameters(recurse=False))
    shape = y.shape[1:] if len(y) == 1 else y.shape  # several rows for one image: patches
    return PartCost(parameters, counter.get_total_flops() // 2, tuple(shape), len(y) * y.shape[1]), y


def part_seconds(parts: Parts, image_shape: tuple[int, int, int], batch: int) -> tuple[float, float, float]:
    """Seconds for one image that each of `parts` takes here, in batches: the median of a few rounds, one after the
    other; PyTorch in eager mode, without the mix.
    """
    times: list[list[float]] = [[], [], []]
    with torch.inference_mode():
        for number in range(ROUNDS + 1):
            x = torch.zeros(batch, *image_shape)
            for part, seconds in zip(parts, times, strict=True):
                start = time.perf_counter()
                x = part.eval()(x)
                if number:  # the first round pays for memory
                    seconds.append((time.perf_counter() - start) / batch)
    first, cloud, last = (statistics.median(seconds) for seconds in times)
    return first, cloud, last
