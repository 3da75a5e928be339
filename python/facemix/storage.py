"""Weights in files that are either whole or absent: safetensors with a JSON config."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .atomic import atomic_path

__all__ = ["CLOUD_KIND", "digest", "file_digest", "fingerprint", "load_tensors", "save_tensors"]

CONFIG_KEY = "facemix"

#: What the config of a cloud part says that it is; the number changes when the config does.
CLOUD_KIND = "facemix-cloud-2"


def save_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON config to a safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        # Not `save_file`: where the disk is full it raises an error of its own, which is no OSError.
        temporary.write_bytes(save(plain, {CONFIG_KEY: json.dumps(config, sort_keys=True)}))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    The file is copied, not mapped: a server may go on with the tensors while the file is written over.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a file that `save_tensors` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load_tensors: path must be a file, got {path}")
    data = path.read_bytes()
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        config = json.loads(header["__metadata__"][CONFIG_KEY])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"load_tensors: {path} must be a safetensors file of facemix, got {error!r}") from error
    if not isinstance(config, dict):
        raise ValueError(f"load_tensors: the config in {path} must be a JSON object, got {str(config)[:80]}")
    return tensors, config


def fingerprint(parts: Iterable[nn.Module]) -> str:
    """SHA-256 of the names, shapes and values of all weights of the three `parts` of a network and of where the cuts
    are, 32 hexadecimal digits of it.

    The files of both sides carry it, so that an edge notices a cloud that serves the middle of another network, or
    another middle of this one: such an answer un-mixes to scores that look as good as any.
    """
    total = hashlib.sha256()
    for part in parts:
        total.update(b"part\n")
        _add(total, part.state_dict())
    return total.hexdigest()[:32]


def digest(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes and values, 16 hexadecimal digits of it."""
    total = hashlib.sha256()
    _add(total, weights)
    return total.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _add(total: hashlib._Hash, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in sorted(weights.items()):
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
