"""Write the file that the cloud serves: the weights of the middle of a network, and how to rebuild its
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .partition import partition
from .storage import CLOUD_KIND, save_tensors

__all__ = ["export_cloud"]

# Options of a model that concern its last layer alone. The cloud never learns them: the number of classes
# says how many people the edge tells apart.
EDGE_OPTIONS = ("num_classes",)


def export_cloud(
    path: Path,
    model: nn.Module,
    builder: str,
    options: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    *,
    name: str,
    pre: int = 1,
    post: int = 1,
) -> None:
    """Write the cloud part of `model` to `path`, and neither the edge's first part nor its last.

    Args:
        path: a .safetensors file.
        model: plain (not converted) and trained.
        builder, options: what `models.build` makes such a model of.
        image_shape: (channels, height, width) of an image.
        name: what clients call the model.
        pre, post: the cut, see `partition`.
    """
    parts = partition(model, pre, post)
    first = parts.edge_first.eval()
    with torch.inference_mode():
        features = first(torch.zeros(1, *image_shape))
    config = {
        "kind": CLOUD_KIND,
        "name": name,
        "builder": builder,
        "options": {key: value for key, value in options.items() if key not in EDGE_OPTIONS},
        "pre": pre,
        "post": post,
        "input_shape": list(features.shape[1:]),
    }
    save_tensors(path, parts.cloud.state_dict(), config)
