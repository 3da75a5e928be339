"""Write the edge's file where `facemix.export.export_edge` cannot: for an edge with PyTorch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .atomic import atomic_path
from .calibration import mixtures, scales
from .edge.torch_bundle import written
from .edge.torch_half import TorchHalf
from .export import check_plain, features_of
from .partition import partition
from .storage import fingerprint

__all__ = ["export_edge_torch"]


def export_edge_torch(
    path: str | os.PathLike[str],
    model: nn.Module,
    builder: str,
    options: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    *,
    name: str,
    version: int = 1,
    group_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    max_coeff: float | None = None,
    wire_dtype: str = "float32",
    classes: Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
    calibration: NDArray[np.uint8] | None = None,
    decoys: NDArray[np.uint8] | None = None,
    pre: int | str = 2,
    post: int | str = 1,
) -> None:
    """Write the edge part of `model` to `path`, for `facemix.edge.torch_half.TorchHalf`: any first and last part, run
    by PyTorch. Where they are one convolution and one linear layer use `export_edge`: its file needs NumPy only.
    `facemix.edge.load_half` reads both.

    Args:
        path: a .safetensors file.
        model: plain (not converted) and trained.
        builder, options: what `models.build` makes such a model of.
        image_shape: (channels, height, width) of an image.
        name, version: what the cloud calls the model.
        group_size: images in a group, 2 to 64; what the network was trained with. 1: nothing is mixed.
        mean, std: of each channel, of pixels from 0 to 1: the network takes (pixel / 255 - mean) / std.
        max_coeff: bound on the largest coefficient of a key, see `facemix_ops.MixKey.sample`.
        wire_dtype: what the edge sends where it is not told: "float32", "float16", "bfloat16" or "int8".
        classes: a name for each score.
        attributes: of a network that tells attributes, a name for each two scores, which are of no and of yes.
        calibration: images like those to classify, uint8 [N, H, W, C], at least a group of them: the scales of int8 are
            found in their mixtures, see `facemix.calibration`. Without them, int8 cannot be sent. They are not kept.
        decoys: public images uint8 [D, H, W, C], kept in the file to fill groups with.
        pre, post: the cut, see `partition`.

    Raises:
        ValueError: if an argument will not do, or the network mixes by itself, see `facemix.export.check_plain`.
    """
    check_plain("export_edge_torch", model)
    parts = partition(model, pre, post)
    features = features_of("export_edge_torch", parts.edge_first.eval(), image_shape)
    channels, height, width = image_shape
    with torch.inference_mode():
        outputs = parts.cloud.eval()(features)
    config = {
        "name": name,
        "version": version,
        "network": fingerprint(parts),
        "builder": builder,
        "options": dict(options),
        "pre": pre,
        "post": post,
        "image_shape": [height, width, channels],
        "mean": list(mean),
        "std": list(std),
        "features_shape": list(features.shape[1:]),
        "outputs_shape": list(outputs.shape[1:]),
        "group_size": group_size,
        "max_coeff": max_coeff,
        "wire_dtype": wire_dtype,
        "classes": None if classes is None else list(classes),
        **({} if attributes is None else {"attributes": list(attributes)}),
    }
    weights = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for part in (parts.edge_first, parts.edge_last)
        for key, tensor in part.state_dict().items()
    }
    try:
        found = None
        if calibration is not None:
            uncalibrated = written({**config, "wire_dtype": "float32"}, weights, None, None)
            if len(calibration) < group_size:
                raise ValueError(f"calibration must be at least {group_size} images, got {len(calibration)}")
            found = scales(mixtures(TorchHalf.parse(uncalibrated), calibration))
        data = written(config, weights, found, decoys)
        TorchHalf.parse(data)
    except ValueError as error:
        raise ValueError(f"export_edge_torch: {error}") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
