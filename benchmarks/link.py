"""Split inference over a simulated 4G link, against what `facemix.cost` predicts.

    python benchmarks/link.py [--rounds N] [--json FILE]

The link is the paper's: 15 Mibit/s up, 30 down, 25 ms one way, made by a proxy (benchmarks/link_proxy.py) between the
client and a cloud process on this machine. First bare TCP shows that the link is what it says, then gRPC's connections
are set up over it, then images are classified: groups of 8, with weights and pixels drawn at random. Each round asks
the cloud directly, and predicts from that answer's bytes and computing times how long the same takes over the link.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environment
import grpc
import numpy as np
import torch
import trustme
from cpuinfo import get_cpu_info
from facemix.cost import PAPER_4G, Exchange, request_seconds, setup_seconds, transfer_seconds
from facemix.demo.cloud_process import cloud_process
from facemix.edge import Client, Cost
from facemix.export import export_cloud, export_edge
from facemix.models import build
from link_proxy import shaped
from link_raw import raw_server, transfers
from link_table import COMMITTED, section
from pytest_benchmark.utils import get_commit_info
from result_file import rounded, write

from facemix_ops.edge import EdgeModel
from facemix_ops.edge.wire import WIRE_DTYPES

GROUP = 8
TRANSFERS = [(1, 1), (100_000, 1), (2_000_000, 1), (1, 100_000), (1, 2_000_000), (1_000_000, 1_000_000)]
READY_SECONDS = 10


@dataclass(frozen=True)
class Workload:
    """A ResNet-18, cut behind the stem's pool, and how many images of which shape [C, H, W] it classifies at once."""

    name: str
    images: int
    image_shape: tuple[int, int, int]
    options: dict[str, Any]


WORKLOADS = (
    Workload("ORL demo", 40, (1, 56, 46), {"num_classes": 40, "in_channels": 1, "width": 0.25, "activation": "prelu"}),
    Workload("resnet-stem, pool", 8, (3, 218, 178), {"num_classes": 80, "activation": "prelu"}),
)


@contextlib.contextmanager
def served(workload: Workload) -> Iterator[tuple[EdgeModel, np.ndarray, str]]:
    """The edge's half, images [N, H, W, C], and the address of a cloud process with the middle."""
    torch.manual_seed(0)
    model = build("resnet18", workload.options).eval()
    channels, height, width = workload.image_shape
    images = np.random.default_rng(0).integers(0, 256, (workload.images, height, width, channels), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        edge, cloud = (Path(folder) / f"{side}.safetensors" for side in ("edge", "cloud"))
        export_cloud(cloud, model, "resnet18", workload.options, workload.image_shape, name="link")
        export_edge(
            edge,
            model,
            workload.image_shape,
            name="link",
            group_size=GROUP,
            mean=[0.5] * channels,
            std=[0.25] * channels,
            max_coeff=0.6,
            calibration=images,
        )
        with cloud_process(cloud) as address:
            yield EdgeModel.load(edge), images, address


def exchange(cost: Cost) -> Exchange:
    """What the prediction takes of a cost."""
    return Exchange(cost.messages, cost.bytes_up, cost.bytes_down, cost.edge_seconds, cost.cloud_seconds)


def requests(workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """An entry for each datatype on the wire; the direct answer and the distant one take turns."""
    entries = []
    with served(workload) as (half, images, address), shaped(address, PAPER_4G) as far:
        for wire in WIRE_DTYPES:
            seconds: dict[str, list[float]] = {"loopback": [], "measured": [], "predicted": []}
            with Client(half, address, wire_dtype=wire) as direct, Client(half, far, wire_dtype=wire) as distant:
                for client in (direct, distant):
                    client.classify(images)  # buffers, and the connection
                for _ in range(rounds):
                    cost = _timed(direct, images, seconds["loopback"])
                    distant_cost = _timed(distant, images, seconds["measured"])
                    if distant_cost.attempts != cost.attempts:
                        raise RuntimeError(f"link: nothing must be sent twice, got {distant_cost.attempts} attempts")
                    seconds["predicted"].append(request_seconds(PAPER_4G, exchange(cost)))
            entries.append({"workload": workload.name, "wire": wire, "cost": asdict(cost), "seconds": seconds})
    return entries


def _timed(client: Client, images: np.ndarray, seconds: list[float]) -> Cost:
    start = time.perf_counter()
    cost = client.classify(images).cost
    seconds.append(time.perf_counter() - start)
    return cost


def raw_entries(rounds: int) -> list[dict[str, Any]]:
    """Bare transfers over the link, each beside its prediction."""
    with raw_server() as address, shaped(address, PAPER_4G) as far:
        measured = [transfers(far, TRANSFERS) for _ in range(rounds)]
    return [
        {
            "up": up,
            "down": down,
            "measured": [seconds[i] for seconds in measured],
            "predicted": transfer_seconds(PAPER_4G, up, down),
        }
        for i, (up, down) in enumerate(TRANSFERS)
    ]


def setup_entries(rounds: int) -> list[dict[str, Any]]:
    """Connections of gRPC over the link, in plain text and with TLS."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    key, chain = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    server = grpc.server(ThreadPoolExecutor(1))
    ports = {
        False: server.add_insecure_port("127.0.0.1:0"),
        True: server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)])),
    }
    server.start()
    entries = []
    for tls, port in ports.items():
        measured = []
        with shaped(f"127.0.0.1:{port}", PAPER_4G) as far:
            target = far.replace("127.0.0.1", "localhost")
            for i in range(rounds):
                alone = [("grpc.use_local_subchannel_pool", 1), ("facemix.round", i)]  # no connection of another round
                channel = grpc.secure_channel(target, trusted, alone) if tls else grpc.insecure_channel(far, alone)
                start = time.perf_counter()
                with channel:
                    grpc.channel_ready_future(channel).result(READY_SECONDS)
                    measured.append(time.perf_counter() - start)
        entries.append({"tls": tls, "measured": measured, "predicted": setup_seconds(PAPER_4G, tls=tls)})
    server.stop(None).wait()
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description="Split inference over a simulated 4G link, against the prediction.")
    parser.add_argument("--rounds", type=int, default=7, help="of everything (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=COMMITTED, help="result file")
    options = parser.parse_args()
    result = environment.describe(get_commit_info(), get_cpu_info())
    result["versions"] |= {package: version(package) for package in ("grpcio", "protobuf")}
    result |= {
        "link": asdict(PAPER_4G),
        "rounds": options.rounds,
        "transfers": raw_entries(options.rounds),
        "setup": setup_entries(options.rounds),
        "requests": [entry for workload in WORKLOADS for entry in requests(workload, options.rounds)],
    }
    write(options.json, json.dumps(rounded(result), indent=1) + "\n")
    print(section(rounded(result)))


if __name__ == "__main__":
    main()
