"""The edge half on PyTorch, to compare the one on NumPy with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from facemix.edge.halves import first_half, last_half
from facemix.export import export_edge
from facemix.partition import Parts, partition
from numpy.typing import NDArray
from torch import Tensor, nn

from facemix_ops import MixKey
from facemix_ops.edge import EdgeModel, MixedRequest

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
TORCH_DTYPE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}


class Network(nn.Module):
    """`first` and what may follow it on the edge, a cloud part that is not linear, and a last layer."""

    def __init__(self, *first: nn.Module, features: int = 6, classes: int = 5, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Sequential(*first)
        channels = next(m.out_channels for m in first if isinstance(m, nn.Conv2d))
        self.middle = nn.Sequential(nn.Conv2d(channels, features, 3, padding=1), nn.PReLU(init=0.8))
        self.last = nn.Linear(features, classes, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)).mean((2, 3)))


def trained(network: Network, image: tuple[int, int, int]) -> Network:
    """With batch statistics and parameters that are not the initial ones."""
    height, width, channels = image
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.affine:
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
        for _ in range(3):
            network(torch.randn(8, channels, height, width))
    return network.eval()


def parts_of(network: Network) -> Parts:
    return partition(network, "first.0", "last")


def exported(network: Network, path: Path, image: tuple[int, int, int], group_size: int, **options: Any) -> Path:
    height, width, channels = image
    export_edge(
        path, network, (channels, height, width), name="middle", group_size=group_size, mean=MEAN[:channels],
        std=STD[:channels], pre="first.0", post="last", **options,
    )  # fmt: skip
    return path


def key_of(request: MixedRequest) -> tuple[MixKey, Tensor]:
    """The key of an open request for PyTorch, and the rows of the images and the decoys: a look behind the curtain."""
    key = request._key
    return MixKey(torch.from_numpy(key.coeffs), torch.from_numpy(key.order)), torch.from_numpy(key.rows.copy())


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, H, W, C] -> float64 [B, C, H, W]."""
    channels = images.shape[3]
    mean, std = (torch.tensor(v[:channels], dtype=torch.float64) for v in (MEAN, STD))
    return ((torch.from_numpy(np.ascontiguousarray(images)) / 255.0 - mean) / std).permute(0, 3, 1, 2)


def mixed(network: Network, batch: Tensor, key: MixKey, dtype: torch.dtype) -> Tensor:
    """facemix.edge's first half on `batch`, computed in its dtype, as `dtype`."""
    first = parts_of(copy.deepcopy(network).to(batch.dtype)).edge_first
    with torch.no_grad():
        return first_half(first, key.group_size)(batch, key).to(dtype)


def unmixed(network: Network, reply: Tensor, key: MixKey) -> Tensor:
    """facemix.edge's last half on `reply`, computed in its dtype."""
    last = parts_of(copy.deepcopy(network).to(reply.dtype)).edge_last
    with torch.no_grad():
        return last_half(last)(reply, key)


def as_tensor(payload: NDArray[Any], wire_dtype: str) -> Tensor:
    """A payload as a tensor of its wire dtype."""
    return torch.from_numpy(payload).view(TORCH_DTYPE[wire_dtype])


def load(network: Network, path: Path, image: tuple[int, int, int], group_size: int, **options: Any) -> EdgeModel:
    return EdgeModel.load(exported(network, path / "edge.safetensors", image, group_size, **options))
