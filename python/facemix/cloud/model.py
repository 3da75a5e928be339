"""The middle of a network, rebuilt from a file of `facemix.export`."""

from __future__ import annotations

import os
import threading

import numpy as np
import torch
from numpy.typing import NDArray

from facemix.models import build
from facemix.partition import partition
from facemix.storage import CLOUD_KIND, load_tensors

from .folding import folded

__all__ = ["CloudModel"]

CONFIG_KEYS = ("name", "version", "network", "builder", "options", "pre", "post", "input_shape")

# While torch.fx traces, it patches nn.Module for the whole process: what another thread computes would be traced along,
# and fail or go wrong.
TRACING = threading.Lock()
WARM_ROWS = (2, 1, 4, 8, 16, 32, 64)


class CloudModel:
    """The weights of the middle of a network, ready to run.

    Args:
        path: a file written by `facemix.export.export_cloud`.
        device: where it computes, "cpu" or "cuda".
        compile: run it with `torch.compile`, for any number of rows; loading then takes tens of seconds.

    Attributes:
        name, version: what clients call it.
        network: the fingerprint of the whole network, see `facemix.storage.fingerprint`.
        input_shape, output_shape: of a row that it takes and gives.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file does not hold a cloud part.
    """

    def __init__(self, path: str | os.PathLike[str], *, device: str = "cpu", compile: bool = False) -> None:
        tensors, config = load_tensors(path)
        if config.get("kind") != CLOUD_KIND:
            raise ValueError(f"CloudModel: {path} must be of kind {CLOUD_KIND!r}, got {config.get('kind')!r}")
        if missing := [key for key in CONFIG_KEYS if key not in config]:
            raise ValueError(
                f"CloudModel: the config in {path} must have {', '.join(CONFIG_KEYS)}, got no {', '.join(missing)}"
            )
        # On the meta device the whole network has shapes but no weights; the edge's layers vanish with it.
        try:
            with torch.device("meta"):
                whole = build(config["builder"], config["options"])
        except ValueError as error:
            raise ValueError(f"CloudModel: {path} must name a network that can be built, got {error}") from error
        with TRACING:
            module = partition(whole, config["pre"], config["post"]).cloud
        try:
            module.load_state_dict(tensors, assign=True)
        except RuntimeError as error:  # PyTorch lists the names that are missing or too many
            raise ValueError(f"CloudModel: the weights in {path} must suit its config, got {error}") from error
        self._device = torch.device(device)
        with TRACING:
            fewer_passes = folded(module.eval().requires_grad_(False))
        self.module = fewer_passes.to(self._device)
        self._forward = torch.compile(self.module, dynamic=True) if compile else self.module
        self.name: str = config["name"]
        self.version: int = config["version"]
        self.network: str = config["network"]
        self.input_shape: tuple[int, ...] = tuple(config["input_shape"])
        if type(self.version) is not int or self.version < 1:
            raise ValueError(f"CloudModel: the config in {path} must have a version from 1 on, got {self.version!r}")
        try:
            # The compiler makes a graph for each of a few ranges of rows, when it first meets one.
            for rows in WARM_ROWS if compile else (1,):
                zeros = np.zeros((rows, *self.input_shape), np.float32)
                self.output_shape: tuple[int, ...] = self._compute(zeros).shape[1:]
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                f"CloudModel: the config in {path} must have the input_shape that its layers take, got {error}"
            ) from error

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the outputs [B, ...] of mixed features [B, ...], which must be writeable memory. One thread at a time
        computes, and none while a model is loaded in its first moments.
        """
        with TRACING:
            return self._compute(features)

    def _compute(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self._forward(torch.from_numpy(features).to(self._device)).cpu().numpy()
