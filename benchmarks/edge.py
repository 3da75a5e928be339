"""The edge half in three ways: memory, size on disk, import time, and latency of the two sides of a request.

    python benchmarks/edge.py [--rounds N] [--json FILE]

8 images of 218 x 178, one group, through ResNet-18's stem, with and without its max-pool, float32 on the wire; a last
layer 512 -> 80. Every contestant (benchmarks/edge_contestants.py) runs in `--rounds` processes of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import environment
import numpy as np
from cpuinfo import get_cpu_info
from edge_table import table
from onnx import TensorProto, checker, helper, numpy_helper, save
from packaging.requirements import Requirement
from pytest_benchmark.utils import get_commit_info
from result_file import write
from safetensors.numpy import save as save_tensors

from facemix_ops.edge.bundle import CONFIG_KEY, KIND
from facemix_ops.edge.safetensors import DIGEST_KEY, NO_DIGEST, seal

HERE = Path(__file__).resolve().parent
CONTESTANTS = {"facemix": ("numpy",), "torch": ("torch", "numpy"), "onnxruntime": ("onnxruntime", "numpy")}
WORKLOADS = {"resnet-stem": None, "resnet-stem, pool": [[3, 3], [2, 2], [1, 1]]}
GROUP, HEIGHT, WIDTH, CHANNELS, FEATURES, SCORES = 8, 218, 178, 64, 512, 80
PACKAGES = ("facemix", "numpy", "torch", "onnxruntime", "onnx")
TOLERANCE = 1e-3  # of the largest score
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def write_network(folder: Path, pool: Any) -> None:
    """The same network for all: an edge bundle, arrays, and two ONNX graphs; images, a reply and a key."""
    draw = np.random.default_rng(0)
    weight = (draw.standard_normal((CHANNELS, 3, 7, 7)) * 0.1).astype(np.float32)
    bias, last_bias = np.zeros(CHANNELS, np.float32), np.zeros(SCORES, np.float32)
    last_weight = (draw.standard_normal((SCORES, FEATURES)) * 0.05).astype(np.float32)
    config = {
        "kind": KIND, "name": "stem", "version": 1, "network": "stem",
        "image_shape": [HEIGHT, WIDTH, 3], "mean": MEAN, "std": STD, "stride": [2, 2],
        "padding": [3, 3], "dilation": [1, 1], "activation": "relu", "pool": pool, "group_size": GROUP,
        "max_coeff": 0.6, "wire_dtype": "float32", "classes": None,
    }  # fmt: skip
    tensors = {"first.weight": weight, "first.bias": bias, "last.weight": last_weight, "last.bias": last_bias}
    bundle = save_tensors(tensors, {CONFIG_KEY: json.dumps(config), DIGEST_KEY: NO_DIGEST})
    (folder / "edge.safetensors").write_bytes(seal(bundle))

    coeffs = np.linalg.qr(draw.standard_normal((1, GROUP, GROUP)))[0].astype(np.float32)
    order = draw.permutation(GROUP)
    std = np.array(STD).reshape(3, 1, 1)
    network = {
        "weight": weight, "bias": bias, "last_weight": last_weight, "last_bias": last_bias, "coeffs": coeffs,
        "order": order, "inverse": np.argsort(order), "pooled": np.array(pool is not None),
        "factor": (1 / (255 * std)).astype(np.float32),
        "offset": (-np.array(MEAN).reshape(3, 1, 1) / std).astype(np.float32),
    }  # fmt: skip
    np.savez(folder / "network.npz", **network)
    np.save(folder / "images.npy", draw.integers(0, 256, (GROUP, HEIGHT, WIDTH, 3), dtype=np.uint8))
    np.save(folder / "reply.npy", draw.standard_normal((GROUP, FEATURES)).astype(np.float32))
    _write_graphs(folder, network, pool)


def _write_graphs(folder: Path, network: dict[str, Any], pool: Any) -> None:
    node, info = helper.make_node, helper.make_tensor_value_info
    size = (55, 45) if pool else (109, 89)
    constants = {
        **{name: network[name] for name in ("weight", "bias", "factor", "offset", "last_weight", "last_bias")},
        "groups": np.array([1, GROUP, -1]), "rows": np.array([GROUP, CHANNELS, *size]),
        "outputs": np.array([GROUP, FEATURES]),
    }  # fmt: skip
    coeffs = info("coeffs", TensorProto.FLOAT, [1, GROUP, GROUP])
    mix = [
        node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        node("Mul", ["floats", "factor"], ["scaled"]),
        node("Add", ["scaled", "offset"], ["x"]),
        node("Conv", ["x", "weight", "bias"], ["z"], strides=[2, 2], pads=[3, 3, 3, 3]),
        node("Relu", ["z"], ["relu"]),
        *([node("MaxPool", ["relu"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])] if pool else []),
        node("Reshape", ["p" if pool else "relu", "groups"], ["grouped"]),
        node("MatMul", ["coeffs", "grouped"], ["mixed"]),
        node("Reshape", ["mixed", "rows"], ["sorted"]),
        node("Gather", ["sorted", "inverse"], ["payload"]),
    ]
    reply = [
        node("Gather", ["reply", "order"], ["sorted"]),
        node("Reshape", ["sorted", "groups"], ["grouped"]),
        node("MatMul", ["coeffs", "grouped"], ["unmixed"]),
        node("Reshape", ["unmixed", "outputs"], ["rows_in_order"]),
        node("Gemm", ["rows_in_order", "last_weight", "last_bias"], ["scores"], transB=1),
    ]
    sides = {
        "mix": (mix, [info("images", TensorProto.UINT8, [GROUP, HEIGHT, WIDTH, 3]), coeffs,
                      info("inverse", TensorProto.INT64, [GROUP])], ("payload", [GROUP, CHANNELS, *size])),
        "reply": (reply, [info("reply", TensorProto.FLOAT, [GROUP, FEATURES]), coeffs,
                          info("order", TensorProto.INT64, [GROUP])], ("scores", [GROUP, SCORES])),
    }  # fmt: skip
    for name, (nodes, inputs, (output, shape)) in sides.items():
        used = {value for n in nodes for value in n.input}
        initial = [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used]
        graph = helper.make_graph(nodes, name, inputs, [info(output, TensorProto.FLOAT, shape)], initial)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        checker.check_model(model, full_check=True)
        save(model, folder / f"{name}.onnx")


def installed_bytes(package: str, seen: set[str]) -> int:
    """Size on disk of an installed package and of all that it requires."""
    if package in seen:
        return 0
    seen.add(package)
    try:
        found = distribution(package)
    except PackageNotFoundError:
        return 0
    total = sum(path.stat().st_size for file in found.files or [] if (path := Path(str(file.locate()))).is_file())
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            total += installed_bytes(requirement.name, seen)
    return total


def runtime_bytes() -> int:
    """Size on disk of facemix_ops, without the pipeline that is installed along with it; exits where only a link is."""
    files = [Path(str(file.locate())) for file in distribution("facemix").files or [] if file.parts[0] == "facemix_ops"]
    if not files:
        sys.exit("edge: facemix must be installed with `pip install .`: with -e there is no size to tell")
    return sum(path.stat().st_size for path in files if path.is_file())


def measure(folder: Path, contestant: str, threads: int, repeats: int) -> dict[str, Any]:
    """One process of one contestant."""
    command = [sys.executable, str(HERE / "edge_contestants.py"), contestant, str(folder), str(threads), str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the processes; percentiles over all their requests."""

    def percentile(side: str, percent: int) -> float:
        return float(np.percentile([seconds for run in runs for seconds in run[side]], percent)) * 1e3

    def median(name: str, unit: float) -> float:
        return statistics.median(run[name] for run in runs) * unit

    return {
        "import_ms": median("import_s", 1e3),
        "load_ms": median("load_s", 1e3),
        "first_request_ms": median("first_s", 1e3),
        "mix_p50_ms": percentile("mix_s", 50),
        "mix_p95_ms": percentile("mix_s", 95),
        "reply_p50_ms": percentile("reply_s", 50),
        "reply_p95_ms": percentile("reply_s", 95),
        "peak_mb": max(run["peak_bytes"] for run in runs) / 1e6,
    }


def check(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Exits, naming the contestant, where one's mix and reply together do not give the scores of the others."""
    expected = np.array(next(iter(runs.values()))[0]["scores"])
    for name, processes in runs.items():
        error = max(np.abs(run["scores"] - expected).max() for run in processes)
        if not error <= TOLERANCE * np.abs(expected).max():
            sys.exit(f"edge: {name} must score like the others, got an error of {error:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the edge half on facemix_ops.edge, PyTorch and ONNX Runtime.")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each contestant (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=40, help="requests in each process (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contestant (default: all cores)")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "edge.json", help="result file")
    options = parser.parse_args()

    sizes = {}
    for name, packages in CONTESTANTS.items():
        seen: set[str] = set()
        sizes[name] = sum(installed_bytes(package, seen) for package in packages)
    sizes["facemix"] += runtime_bytes()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for workload, pool in WORKLOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_network(Path(folder), pool)
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTESTANTS}
            for _ in range(options.rounds):
                for name in CONTESTANTS:
                    runs[name].append(measure(Path(folder), name, options.threads, options.repeats))
        check(runs)
        results[workload] = {name: {"install_mb": sizes[name] / 1e6, **summary(runs[name])} for name in CONTESTANTS}
    print(table(results))
    data = {
        "environment": environment.describe(get_commit_info(), get_cpu_info(), PACKAGES) | {"threads": options.threads},
        "rounds": options.rounds,
        "repeats": options.repeats,
        "results": results,
    }
    write(options.json, json.dumps(data, indent=1) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
