"""Edge bundles, whole and broken, written without the pipeline."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from facemix_ops.edge.safetensors import seal

IMAGE = (12, 10, 3)
FEATURES = (5, 6, 5)
OUTPUTS, CLASSES, GROUP = 7, 4, 4

CONFIG: dict[str, Any] = {
    "kind": "facemix-edge-2",
    "name": "small",
    "version": 3,
    "network": "0123456789abcdef",
    "image_shape": list(IMAGE),
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.2, 0.3],
    "stride": [2, 2],
    "padding": [1, 1],
    "dilation": [1, 1],
    "activation": "relu",
    "pool": None,
    "group_size": GROUP,
    "max_coeff": None,
    "wire_dtype": "float32",
    "classes": ["ann", "ben", "cid", "dot"],
}


def tensors() -> dict[str, NDArray[Any]]:
    """The weights that go with CONFIG."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {"first.weight": (5, 3, 3, 3), "first.bias": (5,), "last.weight": (CLASSES, OUTPUTS), "last.bias": (4,)}
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def written(config: dict[str, Any] | str, weights: dict[str, NDArray[Any]]) -> bytes:
    """A bundle with a digest that holds, whatever else is wrong with it."""
    text = config if isinstance(config, str) else json.dumps(config)
    return seal(save(weights, {"facemix": text, "sha256": "0" * 64}))


def bundle_bytes(**changes: Any) -> bytes:
    """CONFIG with some fields changed."""
    return written({**CONFIG, **changes}, tensors())


def assembled(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    """A safetensors file of any header; its digest holds where there is one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def images(count: int, shape: tuple[int, ...] = IMAGE, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, H, W, C]."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
