"""One contestant of the split part of benchmarks/service.py, in a process of its own.

    python benchmarks/service_split.py whole ACTIVATION KIND IMAGES SCORES THREADS
    python benchmarks/service_split.py split ADDRESS BUNDLE DTYPE IMAGES SCORES THREADS

`whole` is the network in one piece in PyTorch: "contiguous", "channels_last", or "folded", which is channels_last with
the batch norms folded as in the cloud. `split` is the edge half without PyTorch, asking a cloud process.
IMAGES is an .npy file of uint8 [N, H, W, C], SCORES one of what they should score. For each line on standard input it
classifies all of IMAGES and prints a line of JSON: how long that took and where the time went.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Classify = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], dict[str, float]]]


def whole(activation: str, kind: str, threads: int) -> Classify:
    import torch
    from facemix.cloud.folding import folded
    from service_parts import MEAN, RESNETS, STD

    torch.set_num_threads(threads)
    layout = torch.contiguous_format if kind == "contiguous" else torch.channels_last
    network = RESNETS[activation].build().requires_grad_(False)
    network = (folded(network) if kind == "folded" else network).to(memory_format=layout)

    def classify(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], dict[str, float]]:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous(memory_format=layout)
            return network(x.mul_(1 / (255 * STD)).sub_(MEAN / STD)).numpy(), {}

    return classify


def split(address: str, bundle: str, dtype: str, threads: int) -> Classify:
    from facemix.edge import Client

    from facemix_ops.edge import EdgeModel

    client = Client(EdgeModel.load(bundle, threads=threads), address, wire_dtype=dtype, timeout=60)

    def classify(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], dict[str, float]]:
        answer = client.classify(images)
        cost = answer.cost
        return answer.scores, {
            "edge_seconds": cost.edge_seconds,
            "cloud_seconds": cost.cloud_seconds,
            "network_seconds": cost.network_seconds,
            "bytes_up": cost.bytes_up,
            "messages": cost.messages,
        }

    return classify


def main() -> None:
    kind, *arguments = sys.argv[1:]
    *arguments, images_file, scores_file, threads = arguments
    make: dict[str, Callable[..., Classify]] = {"whole": whole, "split": split}
    classify = make[kind](*arguments, int(threads))
    images, scores = np.load(images_file), np.load(scores_file)
    for _ in sys.stdin:
        start = time.perf_counter()
        result, parts = classify(images)
        report: dict[str, Any] = {"seconds": time.perf_counter() - start, **parts}
        report["error"] = float(np.abs(result - scores).max() / np.abs(scores).max())
        print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
