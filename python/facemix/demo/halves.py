"""A trained network's two files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemix.data import MEAN, STD, channels_last
from facemix.export import export_cloud, export_edge
from facemix.training.stages import Trained

from .settings import DemoSettings

__all__ = ["write_halves"]


def write_halves(
    trained: Trained,
    name: str,
    settings: DemoSettings,
    image_shape: tuple[int, int, int],
    public: NDArray[np.uint8],
    folder: Path,
) -> tuple[Path, Path]:
    """Write the cloud's file and the edge's into `folder`, and return their paths.

    Args:
        trained: the network.
        name: what the cloud calls it is this and "-cloud".
        image_shape: (channels, height, width) of an image.
        public: images, uint8 [N, C, H, W], that find int8's scales and go into the edge's file as decoys.
    """
    network = trained.plain()
    served, channels = f"{name}-cloud", image_shape[0]
    cloud, edge = folder / f"{served}.safetensors", folder / f"{name}-edge.safetensors"
    export_cloud(cloud, network, trained.model.name, trained.options, image_shape, name=served)
    export_edge(
        edge,
        network,
        image_shape,
        name=served,
        group_size=settings.group_size,
        mean=[MEAN] * channels,
        std=[STD] * channels,
        max_coeff=settings.max_coeff,
        calibration=channels_last(public),
        decoys=channels_last(public),
    )
    return cloud, edge
