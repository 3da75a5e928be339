"""The edge half in a file, of whichever kind it is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from facemix_ops.edge import Bundle, BundleError, EdgeModel, safetensors
from facemix_ops.edge.bundle import CONFIG_KEY

if TYPE_CHECKING:
    from .torch_half import TorchHalf

__all__ = ["check_half", "load_half"]

TORCH_FAMILY = "facemix-edge-torch-"


def load_half(path: str | os.PathLike[str], *, threads: int | None = None) -> EdgeModel | TorchHalf:
    """The half that `facemix.export.export_edge` or `facemix.export_torch.export_edge_torch` wrote. PyTorch is loaded
    for the latter only.

    Args:
        path: a .safetensors file.
        threads: for the kernels of an EdgeModel; a TorchHalf takes PyTorch's.

    Raises:
        OSError: if there is no such file, or it cannot be read.
        BundleError: a ValueError; if it is no such file, was damaged or altered, or is newer than this version.
        ModuleNotFoundError: if it needs PyTorch and there is none.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        if not _kind(data).startswith(TORCH_FAMILY):
            return EdgeModel(Bundle.parse(data), threads=threads)
        from .torch_half import TorchHalf

        return TorchHalf.parse(data)
    except BundleError as error:
        raise BundleError(f"{os.fspath(path)}: {error}") from None


def check_half(op: str, half: Any) -> None:
    """Raises TypeError where `half` is not the edge's half of a network, but its path, say."""
    if not (hasattr(half, "bundle") and hasattr(half, "mix")):
        rule = "half must be an edge half, such as facemix.edge.load_half(path) returns"
        raise TypeError(f"{op}: {rule}, got {type(half).__name__}")


def _kind(data: bytes) -> str:
    """What the config says that it is; an empty text where nothing says so, which the loader will find too."""
    try:
        config = safetensors.parse(data).metadata.get(CONFIG_KEY, "{}")
        return str(safetensors.parse_json(config, "the config").get("kind"))
    except BundleError:
        return ""
