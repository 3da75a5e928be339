"""One of the two parties of benchmarks/crypten_race.py: ResNet-18 on secret shares, in CrypTen's own environment.

    python benchmarks/crypten_party.py NETWORK.npz {public,shared}

Rank, world size and rendezvous come in CrypTen's environment variables. The network is in NETWORK.npz, its batch norms
folded into the convolutions, which saves CrypTen that work. Prints JSON: seconds, bytes, rounds, memory, scores.
"""

from __future__ import annotations

import json
import sys
import time
import types
from typing import Any

import numpy as np
import torch
from edge_contestants import peak_bytes

# CrypTen's converter from ONNX, which is not used here, imports a module that PyTorch no longer has.
sys.modules["torch.onnx.symbolic_registry"] = types.ModuleType("torch.onnx.symbolic_registry")

import crypten  # noqa: E402

EDGE, CLOUD = 0, 1
BLOCKS = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]


class Network:
    """ResNet-18 whose weights are tensors, or CrypTen's shares of them."""

    def __init__(self, weights: dict[str, Any]) -> None:
        self._weights = weights

    def __call__(self, x: Any) -> Any:
        """Images [N, C, H, W] -> scores [N, classes]."""
        x = self._conv("conv1", x, stride=2, padding=3).relu().max_pool2d(3, stride=2, padding=1)
        for name in BLOCKS:
            shrinks = f"{name}.downsample.weight" in self._weights
            stride = 2 if shrinks else 1
            y = self._conv(f"{name}.conv1", x, stride, padding=1).relu()
            y = self._conv(f"{name}.conv2", y, 1, padding=1)
            x = (y + (self._conv(f"{name}.downsample", x, stride, padding=0) if shrinks else x)).relu()
        return x.mean((2, 3)).matmul(self._weights["fc.weight"].t()) + self._weights["fc.bias"]

    def _conv(self, name: str, x: Any, stride: int, padding: int) -> Any:
        bias = self._weights[f"{name}.bias"]
        return x.conv2d(self._weights[f"{name}.weight"], stride=stride, padding=padding) + bias.view(1, len(bias), 1, 1)


def main(network: str, weights_are: str) -> None:
    torch.set_num_threads(1)  # two parties, two cores
    arrays = {name: torch.from_numpy(array) for name, array in np.load(network).items()}
    images = arrays.pop("images")
    crypten.init()
    crypten.cfg.communicator.verbose = True  # counts the bytes
    communicator = crypten.communicator.get()
    model = Network(
        {name: crypten.cryptensor(array, src=CLOUD) for name, array in arrays.items()}
        if weights_are == "shared"
        else arrays
    )
    communicator.barrier()
    communicator.reset_communication_stats()
    start = time.perf_counter()
    with crypten.no_grad():
        scores = model(crypten.cryptensor(images, src=EDGE)).get_plain_text(dst=EDGE)
    seconds = time.perf_counter() - start
    statistics = communicator.get_communication_stats()
    result = {
        "seconds": seconds,
        "bytes": statistics["bytes"],
        "rounds": statistics["rounds"],
        "waiting_seconds": statistics["time"],
        "peak_bytes": peak_bytes(),
        "scores": scores.tolist() if communicator.get_rank() == EDGE else None,
    }
    print(json.dumps(result))
    crypten.uninit()


if __name__ == "__main__":
    main(*sys.argv[1:])
