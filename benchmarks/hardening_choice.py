"""One secret row for each row that is sent, or several that are mixed in: what the network still gets right."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from facemix.cloud.model import CloudModel
from facemix.data import Labelled, channels_last
from facemix.edge import load_half
from facemix.training.deploy import CLOUD, EDGE

SHARES = (0.5, 0.25, 0.1, 0.03, 0.01, 0.005, 0.001)
MIXED_IN = 32


def choice(run: Path, faces: Labelled, rounds: int) -> list[dict[str, float]]:
    """The accuracy with each, for each share of mixed rows.

    Args:
        run: folder of the seed of an experiment.
        faces: with identity.
        rounds: over all faces, but for those that fill no group.
    """
    half, cloud = load_half(run / EDGE), CloudModel(run / CLOUD)
    draw, size = np.random.default_rng(0), half.bundle.group_size
    pixels, identity = channels_last(faces.images), faces.labels("identity").numpy()
    found = []
    for share in SHARES:
        right = {"one": 0, "mixed_in": 0}
        count = 0
        for _ in range(rounds):
            for rows in np.split(order := draw.permutation(len(faces)), range(8 * size, len(order), 8 * size)):
                rows = rows[: len(rows) // size * size]
                for name, blinded in (("one", _one), ("mixed_in", _mixed_in)):
                    with half.mix(pixels[rows], wire_dtype="float32") as request:
                        labels = request.classify(blinded(cloud, request.payload, share, size, draw)).labels
                    right[name] += int((labels == identity[rows]).sum())
                count += len(rows)
        found.append({"share": share, **{name: hits / count for name, hits in right.items()}})
    return found


def _one(cloud: CloudModel, mixed: Any, share: float, size: int, draw: np.random.Generator) -> Any:
    """What un-blinding leaves where each row has a secret row of its own."""
    noise = _noise(mixed.shape, mixed, share, draw)
    return (cloud.run(share * mixed + noise) - cloud.run(noise)) / np.float32(share)


def _mixed_in(cloud: CloudModel, mixed: Any, share: float, size: int, draw: np.random.Generator) -> Any:
    """The same where each group has MIXED_IN of them, of which every row holds an orthogonal mixture."""
    zero = cloud.run(np.zeros((1, *mixed.shape[1:]), np.float32))
    replies = []
    for group in np.split(mixed, len(mixed) // size):
        noise = _noise((MIXED_IN, *mixed.shape[1:]), mixed, share, draw)
        weights = np.linalg.qr(draw.standard_normal((MIXED_IN, MIXED_IN)))[0][:size].astype(np.float32)
        reply = cloud.run(share * group + np.tensordot(weights, noise, 1)) - zero
        replies.append((reply - weights @ (cloud.run(noise) - zero)) / np.float32(share))
    return np.concatenate(replies)


def _noise(shape: tuple[int, ...], mixed: Any, share: float, draw: np.random.Generator) -> Any:
    level = math.sqrt((1 - share**2) * np.square(mixed, dtype=np.float64).mean())
    return (level * draw.standard_normal(shape)).astype(np.float32)
