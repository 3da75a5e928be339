"""Networks whose cloud part is linear, so that mixing changes nothing: an answer through the cloud is right if it
equals the network's in this process, whatever key and whatever group it had.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from facemix.export import export_cloud, export_edge
from facemix.models import build
from numpy.typing import NDArray
from torch import nn

__all__ = ["GROUP", "IMAGE", "TOLERANCE", "exact_network", "export", "pictures", "truth"]

# Slopes of 1 and batch norms without offsets: linear behind the stem.
OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
IMAGE, GROUP = (32, 32, 1), 4
MEAN, STD = 0.5, 0.25
TOLERANCE = 1e-3  # of the largest score, for float32 on the wire


def exact_network(seed: int) -> nn.Module:
    """A plain network in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build("resnet18", OPTIONS).eval()


def export(folder: Path, network: nn.Module, name: str, version: int = 1) -> tuple[Path, Path]:
    """The files of cloud and edge."""
    cloud, edge = (folder / f"{name}-{version}-{side}.safetensors" for side in ("cloud", "edge"))
    export_cloud(cloud, network, "resnet18", OPTIONS, (1, 32, 32), name=name, version=version)
    export_edge(edge, network, (1, 32, 32), name=name, version=version, group_size=GROUP, mean=[MEAN], std=[STD])
    return cloud, edge


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, uint8 [count, 32, 32, 1]; no two are alike."""
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE), dtype=np.uint8)


def truth(network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scores of the network in one piece, [N, classes]."""
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return network((pixels - MEAN) / STD).numpy()
