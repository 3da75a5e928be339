"""A trained network's two files: what the cloud serves, and what the edge runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import facemix_ops as fo
from facemix.data import MEAN, STD, Labelled, channels_last, synthetic_faces
from facemix.edge.halves import first_half, last_half
from facemix.export import export_cloud, export_edge
from facemix.export_torch import export_edge_torch
from facemix.partition import partition

from .settings import Experiment, ModelSettings

__all__ = ["CLOUD", "EDGE", "write_halves"]

CLOUD, EDGE = "cloud.safetensors", "edge.safetensors"
DECOYS, CALIBRATION = 64, 256


def write_halves(
    folder: Path,
    network: nn.Module,
    experiment: Experiment,
    model: ModelSettings,
    options: Mapping[str, Any],
    train: Labelled,
    labels: list[str],
) -> None:
    """Write both into `folder`.

    The scales of int8 are found in photographs of the training set, of which nothing else is kept. Decoys are drawn,
    not photographed: they belong to nobody.

    Args:
        network: plain, in eval mode.
        model, options: what it is, and where it is cut; what `models.build` makes such a network of.
        labels: a name for each person, or attribute.
    """
    size, (_, channels, height, width) = experiment.group_size, train.images.shape
    image_shape = channels, height, width
    name, cut = experiment.name, {"pre": model.pre, "post": model.post}
    export_cloud(folder / CLOUD, network, model.name, options, image_shape, name=name, **cut)
    decoys = synthetic_faces(DECOYS, 1, (height, width), channels).images
    common: dict[str, Any] = {
        "name": name,
        "group_size": size,
        "mean": [MEAN] * channels,
        "std": [STD] * channels,
        "max_coeff": experiment.mix.max_coeff if size > 1 else None,
        "calibration": channels_last(np.asarray(train.images[:CALIBRATION])) if len(train) >= size else None,
        "decoys": channels_last(decoys),
        "attributes" if experiment.data.task == "attributes" else "classes": labels,
        **cut,
    }
    parts = partition(network, model.pre, model.post)
    first, last = first_half(parts.edge_first, size), last_half(parts.edge_last)
    if isinstance(first, fo.MixConv2d) and isinstance(last, fo.UnmixLinear):  # what NumPy alone can run
        export_edge(folder / EDGE, network, image_shape, **common)
    else:
        export_edge_torch(folder / EDGE, network, model.name, options, image_shape, **common)
