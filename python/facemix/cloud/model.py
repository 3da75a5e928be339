"""The middle of a network, rebuilt from a file of `facemix.export`."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from facemix.models import build_bare
from facemix.partition import partition
from facemix.storage import CLOUD_KIND, load_tensors

from .folding import folded

__all__ = ["CloudModel"]

MAX_TEXT = 256
MAX_VERSION = (1 << 63) - 1
MAX_VALUES = 1 << 28  # of a row: 1 GiB

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
        _check(path, config)
        # Without weights; the edge's layers vanish with the whole network.
        try:
            whole = build_bare(config["builder"], config["options"])
            with TRACING:
                module = partition(whole.eval(), config["pre"], config["post"]).cloud  # not with its dropouts
        except Exception as error:  # whatever a network's own code raises on such options
            raise ValueError(f"CloudModel: {path} must name a network that can be built, got {_line(error)}") from error
        try:
            module.load_state_dict(tensors, assign=True)
            with TRACING:
                fewer_passes = folded(module.eval().requires_grad_(False))
        except Exception as error:  # PyTorch lists the names that are missing or too many
            raise ValueError(f"CloudModel: the weights in {path} must suit its config, got {_line(error)}") from error
        self._device = torch.device(device)
        self.module = fewer_passes.to(self._device)
        self._forward = torch.compile(self.module, dynamic=True) if compile else self.module
        self.name: str = config["name"]
        self.version: int = config["version"]
        self.network: str = config["network"]
        self.input_shape: tuple[int, ...] = tuple(config["input_shape"])
        try:
            # The compiler makes a graph for each of a few ranges of rows, when it first meets one.
            for rows in WARM_ROWS if compile else (1,):
                zeros = np.zeros((rows, *self.input_shape), np.float32)
                self.output_shape: tuple[int, ...] = self._compute(zeros).shape[1:]
        except Exception as error:  # as above
            raise ValueError(
                f"CloudModel: the config in {path} must have the input_shape that its layers take, got {_line(error)}"
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


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_TEXT and value.isprintable()


def _is_cut(value: object) -> bool:
    return type(value) is int or _is_text(value)


def _is_version(value: object) -> bool:
    return type(value) is int and 1 <= value <= MAX_VERSION


def _is_shape(value: object) -> bool:
    if not isinstance(value, list) or not all(type(size) is int and size >= 1 for size in value):
        return False
    return math.prod(value) <= MAX_VALUES


TEXT = f"a text of 1 to {MAX_TEXT} printable characters"
CUT = "a number or the name of a layer"
FIELDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "name": (_is_text, TEXT),
    "version": (_is_version, f"an integer from 1 to {MAX_VERSION}"),
    "network": (_is_text, TEXT),
    "builder": (_is_text, TEXT),
    "options": (lambda value: isinstance(value, dict), "an object"),
    "pre": (_is_cut, CUT),
    "post": (_is_cut, CUT),
    "input_shape": (_is_shape, f"a list of integers from 1 on with a product of {MAX_VALUES} at most"),
}


def _check(path: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """What is wrong with a config is said before anything is made of it: the file may be half another's."""
    if missing := [field for field in FIELDS if field not in config]:
        raise ValueError(f"CloudModel: the config in {path} must have {', '.join(FIELDS)}, got no {', '.join(missing)}")
    for field, (suits, rule) in FIELDS.items():
        if not suits(config[field]):
            raise ValueError(
                f"CloudModel: {field} in the config of {path} must be {rule}, got {repr(config[field])[:80]}"
            )


def _line(error: Exception) -> str:
    """What it says, as one line; PyTorch goes on about every weight."""
    return " ".join(str(error).split())[:500] or type(error).__name__
