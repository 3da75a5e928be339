"""What is done beforehand for one-time blinding, by somebody who has both halves of a network."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facemix.cloud.model import CloudModel
from facemix.edge.blinders import Blinders
from facemix.edge.blinding import SEED_BYTES, Blinding
from facemix_ops.edge import EdgeModel

if TYPE_CHECKING:
    from facemix.edge.torch_half import TorchHalf

__all__ = ["write_blinders"]

BATCH = 64  # rows that are computed at once


def write_blinders(
    path: str | os.PathLike[str],
    half: EdgeModel | TorchHalf,
    cloud: CloudModel,
    images: NDArray[np.uint8],
    rows: int,
    share: float | None = None,
    *,
    progress: bool = False,
) -> Blinders:
    """Draw `rows` secret rows, compute the cloud's output of each, and write a pool of them.

    Args:
        path: of a new file.
        half, cloud: of one network. The server must compute as `cloud` does but for rounding of float32.
        images, share: see `Blinding.of`.
        progress: show a bar on a terminal.

    Raises:
        ValueError: if an argument will not do, or the halves are of different networks.
        OSError: if the file exists, or cannot be written.
    """
    if rows < 1:
        raise ValueError(f"write_blinders: rows must be at least 1, got {rows}")
    if cloud.network != half.bundle.network:
        raise ValueError(
            f"write_blinders: cloud must be the middle of network {half.bundle.network}, got that of {cloud.network}"
        )
    blinding = Blinding.of(half, images, share)

    def pairs() -> Iterator[tuple[bytes, NDArray[np.float32]]]:
        with tqdm(total=rows, unit=" rows", leave=False, disable=None if progress else True) as bar:
            for start in range(0, rows, BATCH):
                seeds = [secrets.token_bytes(SEED_BYTES) for _ in range(min(BATCH, rows - start))]
                yield from zip(seeds, cloud.run(blinding.rows(seeds, cloud.input_shape)), strict=True)
                bar.update(len(seeds))

    return Blinders.create(path, half.bundle.network, blinding, cloud.input_shape, pairs())
