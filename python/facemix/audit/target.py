"""What a user wants attacked: files, and photographs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from facemix.cloud.model import CloudModel
from facemix.data import open_data
from facemix.device import best_device
from facemix.edge import load_half
from facemix.edge.blinders import Blinders
from facemix.edge.blinding import Blinding
from facemix.edge.torch_bundle import TorchBundle
from facemix.storage import file_digest
from facemix.training.settings import DataSettings
from facemix_ops.edge import Bundle

from .edge import load_edge
from .scene import Cloud, Scene

__all__ = ["Target", "open_cloud"]

ROWS = 256  # that the cloud computes at a time


@dataclass(frozen=True)
class Target:
    """An edge, its cloud, and photographs.

    Attributes:
        edge: file of the edge.
        data: the photographs. Their size and colours follow from the edge.
        cloud: file of the cloud; None: what it answers is not attacked.
        max_coeff: bound on the coefficients; None: the edge's own.
        blinders: a file of `facemix blind`: what is sent goes out beneath such noise. No row of it is used.
        wire_dtype: what is sent; None: what the edge's file says, with blinders float32.
    """

    edge: Path
    data: DataSettings
    cloud: Path | None = None
    max_coeff: float | None = None
    blinders: Path | None = None
    wire_dtype: str | None = None

    @cached_property
    def bundle(self) -> Bundle | TorchBundle:
        """The edge's, which names the network.

        Raises:
            OSError, BundleError: the file will not do.
        """
        return load_half(self.edge).bundle

    @cached_property
    def blinding(self) -> Blinding | None:
        """How deep rows lie beneath the noise, see `blinders`; None: there is no noise.

        Raises:
            OSError, BlindersError, ValueError: the file will not do, or is of another network.
        """
        if self.blinders is None:
            return None
        pool = Blinders(self.blinders)
        if pool.network != (network := self.bundle.network):
            raise ValueError(f"audit: {self.blinders} must be of network {network}, the edge's, got {pool.network}")
        return pool.blinding

    def scene(self, *, victims: int, seed: int, effort: Literal["quick", "full"]) -> Scene:
        """Who is attacked, see `Scene.of`.

        Raises:
            OSError, ValueError, DataError: a file or a setting will not do.
        """
        height, width, channels = self.bundle.image_shape
        size: dict[str, Any] = {"size": (height, width), "channels": channels}
        cloud = None if self.cloud is None else open_cloud(self.cloud, self.bundle.network)
        edge = load_edge(self.edge, max_coeff=self.max_coeff, blinding=self.blinding, wire_dtype=self.wire_dtype)
        splits = open_data(replace(self.data, **size))
        return Scene.of(edge, splits, cloud=cloud, victims=victims, seed=seed, effort=effort)

    def settings(self) -> dict[str, Any]:
        """What tells this edge from others, as JSON values, without places on this machine."""
        return {
            "edge": file_digest(self.edge),
            "cloud": None if self.cloud is None else file_digest(self.cloud),
            "source": self.data.source,
            "max_coeff": self.max_coeff,
            "blinding": None if self.blinding is None else asdict(self.blinding),
            "wire_dtype": self.wire_dtype,
        }


def open_cloud(path: Path, network: str | None = None) -> Cloud:
    """What the cloud's file computes.

    Args:
        path: of the file.
        network: which it must be the middle of, see `facemix.storage.fingerprint`; None: any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no cloud, or that of another network.
    """
    model = CloudModel(path, device=str(best_device()))
    if network not in (None, model.network):
        raise ValueError(
            f"audit: {path} must be the middle of the edge's network, {network}, got one of {model.network}"
        )

    def run(received: Tensor) -> Tensor:
        parts = [model.run(np.array(rows.cpu().numpy())) for rows in received.split(ROWS)]
        return torch.from_numpy(np.concatenate(parts))

    return run
