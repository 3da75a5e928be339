"""The edge of benchmarks/crypten_race.py: split inference of one group, in a process without PyTorch.

    python benchmarks/crypten_split.py EDGE.safetensors IMAGES.npy HOST:PORT ROUNDS

Prints JSON: seconds of each round, the cost of the last one, memory.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict

import numpy as np
from edge_contestants import peak_bytes
from facemix.edge import Client

from facemix_ops.edge import EdgeModel


def main(edge: str, images: str, address: str, rounds: str) -> None:
    pictures, seconds = np.load(images), []
    with Client(EdgeModel.load(edge), address) as client:
        client.classify(pictures)  # buffers, and the connection
        for _ in range(int(rounds)):
            start = time.perf_counter()
            answer = client.classify(pictures)
            seconds.append(time.perf_counter() - start)
    peak = peak_bytes()
    print(json.dumps({"seconds": seconds, "cost": asdict(answer.cost), "peak_bytes": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
