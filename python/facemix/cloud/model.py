"""The middle of a network, rebuilt from a file of `facemix.export`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from facemix.models import build
from facemix.partition import partition
from facemix.storage import CLOUD_KIND, load_tensors
from facemix.wire import TensorSpec

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "CloudModel"]

CONFIG_KEYS = ("name", "builder", "options", "pre", "post", "input_shape")

INPUT_NAME, OUTPUT_NAME = "mixed_features", "mixed_outputs"


class CloudModel:
    """The weights of the middle of a network, ready to run.

    Args:
        path: a file written by `facemix.export.export_cloud`.

    Attributes:
        name: what clients call it.
        input, output: the tensors it takes and gives; the first size is the batch.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file does not hold a cloud part.
    """

    def __init__(self, path: Path) -> None:
        tensors, config = load_tensors(path)
        if config.get("kind") != CLOUD_KIND:
            raise ValueError(f"CloudModel: {path} must be of kind {CLOUD_KIND!r}, got {config.get('kind')!r}")
        if missing := [key for key in CONFIG_KEYS if key not in config]:
            raise ValueError(
                f"CloudModel: the config in {path} must have {', '.join(CONFIG_KEYS)}, got no {', '.join(missing)}"
            )
        # On the meta device the whole network has shapes but no weights; the edge's layers vanish with it.
        with torch.device("meta"):
            whole = build(config["builder"], config["options"])
        self.module = partition(whole, config["pre"], config["post"]).cloud
        try:
            self.module.load_state_dict(tensors, assign=True)
        except RuntimeError as error:  # PyTorch lists the names that are missing or too many
            raise ValueError(f"CloudModel: the weights in {path} must suit its config, got {error}") from error
        self.module.eval().requires_grad_(False)
        self.name: str = config["name"]
        self.input = TensorSpec(INPUT_NAME, (-1, *config["input_shape"]))
        sample = np.zeros((1, *config["input_shape"]), dtype=np.float32)
        self.output = TensorSpec(OUTPUT_NAME, (-1, *self.run(sample).shape[1:]))

    def run(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the outputs [B, ...] of mixed features [B, ...]; computed in float32."""
        with torch.inference_mode():
            # A copy, because PyTorch wants memory that it may write to.
            return self.module(torch.from_numpy(features.astype(np.float32))).numpy()
