"""The arithmetic and the tables of benchmarks/service.py, and its load generator against a cloud that lies."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import service
from exact import GROUP, exact_network, export
from facemix.wire import get_features, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import RETRY_AFTER
from service import memory
from service_load import load
from service_parts import FACES, MIB, RESNETS, Network
from service_table import load_table, section, soak_table, split_table

WHERE = {
    "date": "2026-01-02",
    "commit": "0123456789",
    "machine": {"cpu": "made up", "family and model": "1, 2", "cores": 2},
    "versions": {"torch": "1.2", "grpcio": "3.4", "kserve": "5.6"},
}
LOAD = {
    "server": "facemix", "clients": 8, "images_per_second": 1234.5, "p50_ms": 1.234, "p95_ms": 20.06, "p99_ms": 300.4,
    "rejections": 7, "resident_bytes": 400 * MIB, "requests": 10, "errors": [{"UNAVAILABLE": 2}, {}, {"INTERNAL": 1}],
}  # fmt: skip
SOAK = {
    "minutes": 10,
    "clients": 8,
    "counts": {"answers": 100, "images": 900, "wrong": 0, "CloudTimeout": 3},
    "cloud": {"first_mib": 400.0, "last_mib": 401.0, "mib_a_minute": 0.125, "peak_mib": 402.0},
    "edge": {"first_mib": 80.0, "last_mib": 80.5, "mib_a_minute": 0.0625, "peak_mib": 81.0},
}
TIMES = {"edge_seconds": [0.032] * 3, "cloud_seconds": [0.64] * 3, "network_seconds": [0.016] * 3}
SPLIT = {
    "relu": {
        "in one piece, contiguous": {"seconds": [1.28, 0.96, 1.28]},
        "in one piece, folded": {"seconds": [0.64, 0.64, 0.64]},
        "split, float32": {"seconds": [0.8, 0.64, 0.96], "bytes_up": [32 * 2048] * 3, "messages": [4] * 3, **TIMES},
    }
}


def test_memory_is_judged_after_the_first_quarter() -> None:
    seconds = tuple(float(second) for second in range(400))
    sizes = [int((100 + max(0, second - 100) / 60) * MIB) for second in range(400)]
    sizes[3] = 500 * MIB  # a peak while it warms up
    found = memory(seconds, tuple(sizes))
    assert found["mib_a_minute"] == pytest.approx(1, rel=1e-3)
    assert found["first_mib"] == pytest.approx(100, rel=1e-3)
    assert found["last_mib"] == pytest.approx(105, rel=1e-3)
    assert found["peak_mib"] == 500
    assert memory((0.0,), (MIB,)) == {"first_mib": 1, "last_mib": 1, "mib_a_minute": 0, "peak_mib": 1}


def test_the_tables() -> None:
    assert load_table([LOAD]).splitlines()[2] == "| 8 | facemix | 1234 | 1.23 | 20.1 | 300 | 7 | 3 | 400 |"
    assert soak_table(SOAK).splitlines()[2:4] == [
        "| cloud | 400 | 401 | 0.125 | 402 |",
        "| edge | 80 | 80.5 | 0.0625 | 81 |",
    ]
    assert "100 answers for 900 images, 0 wrong, 3 errors" in soak_table(SOAK)
    whole, best, split = split_table(SPLIT).splitlines()[2:]
    assert whole == "| ReLU | in one piece, contiguous | 40 | - | - | - | - | - | 2.00x (1.75 to 2.00) |"
    assert best == "| ReLU | in one piece, folded | 20 | - | - | - | - | - | 1x |"
    assert split == "| ReLU | split, float32 | 25 | 1 | 20 | 0.5 | 2 | 4 | 1.25x (1.12 to 1.38) |"


def test_what_was_not_measured_is_not_on_the_page() -> None:
    parts = {"load": [LOAD], "soak": SOAK, "split": SPLIT}
    data: dict[str, Any] = {part: {"environment": WHERE, "result": result} for part, result in parts.items()}
    assert section(data).count("commit 0123456, 2026-01-02.") == 3
    assert section(data).count("KServe 5.6") == 1
    assert section(data).count("Medians of 3 interleaved rounds") == 2
    del data["soak"]
    assert "answers" not in section(data)


def test_a_part_that_fails_does_not_lose_those_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("wrong answers")

    path = tmp_path / "new" / "service.json"
    monkeypatch.setattr(service, "PARTS", {"load": lambda *_: [LOAD], "soak": broken})
    monkeypatch.setattr(sys, "argv", ["service.py", "--json", str(path)])
    with pytest.raises(RuntimeError, match="wrong answers"):
        service.main()
    assert json.loads(path.read_text())["load"]["result"] == [LOAD]


def test_a_load_is_the_median_of_its_rounds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = ({"p50_ms": p50, "wrong": 0, "requests": 10, "errors": {"INTERNAL": p50}} for p50 in (3, 9, 1))
    others = dict.fromkeys(("images_per_second", "p95_ms", "p99_ms", "rejections"), 2)

    @contextlib.contextmanager
    def cloud(*_: Any) -> Iterator[Any]:
        yield argparse.Namespace(address="nowhere", resident_bytes=MIB)

    monkeypatch.setattr(service, "cloud", cloud)
    monkeypatch.setattr(service, "run", lambda *_: others | next(measured))
    options = argparse.Namespace(servers=["facemix"], rounds=3, clients=[8], seconds=1)
    (row,) = service.load(options, tmp_path)
    assert row == {"server": "facemix", "clients": 8, **others, "p50_ms": 3, "resident_bytes": MIB, "requests": 30,
                   "errors": [{"INTERNAL": 3}, {"INTERNAL": 9}, {"INTERNAL": 1}]}  # fmt: skip


def test_the_first_round_of_a_split_warms_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    off = 0.0

    @contextlib.contextmanager
    def cloud(*_: Any) -> Iterator[Any]:
        yield argparse.Namespace(address="nowhere")

    @contextlib.contextmanager
    def asked(*_: Any) -> Iterator[Any]:
        seconds = iter((100.0, 1.0, 2.0))
        yield lambda: {"seconds": next(seconds), "error": off}

    monkeypatch.setattr(service, "cloud", cloud)
    monkeypatch.setattr(service, "asked", asked)
    options = argparse.Namespace(threads=1, dtypes=["float32"], split_rounds=2)
    network = Network("small", (1, 56, 46), 0.25, 40)
    found = service.compare(network, options, tmp_path)
    assert found["split, float32"] == found["in one piece, folded"] == {"seconds": [1, 2]}
    off = 0.5
    with pytest.raises(RuntimeError, match="must be within"):
        service.compare(network, options, tmp_path)


def test_networks_are_the_same_each_time() -> None:
    for network in (FACES, RESNETS["relu"]):
        first, second = network.build().state_dict(), network.build().state_dict()
        assert all(first[name].equal(second[name]) for name in first)


class Lying:
    """A server that refuses each request once, then answers; every eighth answer is another's."""

    def __init__(self) -> None:
        self.calls = 0
        infer = grpc.unary_unary_rpc_method_handler(self._infer, pb.ModelInferRequest.FromString)
        handlers = {"ModelInfer": infer}
        self._server = grpc.server(ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _infer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        if self.calls % 2:
            context.set_trailing_metadata([(RETRY_AFTER, "1")])
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "once more")
        features, _ = get_features(request, (8, 8, 8))
        response = pb.ModelInferResponse()
        put_outputs(response, features.reshape(GROUP, -1)[:, :64] + (self.calls % 16 == 0), "FP32")
        return response.SerializeToString()

    def stop(self) -> None:
        """Close all connections."""
        self._server.stop(0).wait(30)


@pytest.fixture
def lying() -> Iterator[Lying]:
    lying = Lying()
    yield lying
    lying.stop()


def test_the_load_counts_rejections_and_wrong_answers(
    lying: Lying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service_load.WARM_UP", 0.0)
    _, edge = export(tmp_path, exact_network(1), "middle")
    found = asyncio.run(load(lying.address, str(edge), clients=1, seconds=0.5))
    assert found["requests"] > 8
    assert abs(found["rejections"] - found["requests"]) <= 1
    assert found["wrong"] >= found["requests"] // 8 - 1 > 0
    assert found["errors"] == {}
    assert found["images_per_second"] == found["requests"] * GROUP / 0.5
    assert np.isfinite([found[f"p{percent}_ms"] for percent in (50, 95, 99)]).all()
