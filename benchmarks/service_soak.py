"""Edge clients for the memory run of benchmarks/service.py, in a process of their own.

    python benchmarks/service_soak.py ADDRESS BUNDLE TRUTH CLIENTS SECONDS

TRUTH is a .npz of `images` and of the `scores` that the network in one piece gives them. CLIENTS clients ask for a few
of the images at a time, as many as chance has it, decoys filling the groups, and compare every answer. Each makes a
new connection now and then, as devices do. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import collections
import json
import sys
import time

import numpy as np
from facemix.edge import AsyncClient, CloudError
from numpy.typing import NDArray

from facemix_ops.edge import EdgeModel

MOST_IMAGES = 20
REQUESTS_A_CONNECTION = 200


async def client(
    model: EdgeModel, address: str, truth: dict[str, NDArray], seed: int, end: float, counts: collections.Counter[str]
) -> None:
    """Ask until the end."""
    draw = np.random.default_rng(seed)
    tolerance = 1e-3 * np.abs(truth["scores"]).max()
    while time.monotonic() < end:
        async with AsyncClient(model, address, decoys=255 - truth["images"]) as cloud:
            for _ in range(REQUESTS_A_CONNECTION):
                if time.monotonic() >= end:
                    break
                chosen = draw.choice(len(truth["images"]), draw.integers(1, MOST_IMAGES + 1), replace=False)
                try:
                    answer = await cloud.classify(truth["images"][chosen])
                except CloudError as error:
                    counts[type(error).__name__] += 1
                    continue
                counts["answers"] += 1
                counts["images"] += len(chosen)
                counts["wrong"] += not np.allclose(answer.scores, truth["scores"][chosen], rtol=0, atol=tolerance)


async def soak(address: str, bundle: str, truth: str, clients: int, seconds: float) -> collections.Counter[str]:
    """All clients, until the time has passed."""
    with np.load(truth) as file:
        arrays = dict(file)
    model = EdgeModel.load(bundle, threads=1)
    counts: collections.Counter[str] = collections.Counter(wrong=0)
    end = time.monotonic() + seconds
    await asyncio.gather(*(client(model, address, arrays, seed, end, counts) for seed in range(clients)))
    return counts


if __name__ == "__main__":
    address, bundle, truth, clients, seconds = sys.argv[1:]
    print(json.dumps(asyncio.run(soak(address, bundle, truth, int(clients), float(seconds)))))
