"""What each wire dtype costs: accuracy through the mix, error of the scores, bytes up, and time of the mix.

    python benchmarks/wire_dtypes.py [--rounds N] [--json FILE]

The demo's network with the mixing in the loop (from the demo's cache, else trained as `facemix demo` does) and the ORL
test faces, through the kernels, the messages and the cloud's arithmetic in one process, without a network between. In
every request all dtypes are mixed under the same fresh key, so that what differs is the dtype. The scales of int8 come
from the training faces: those of facemix.calibration, and for comparison those for the largest value and for a
percentile. Times are medians of interleaved calls into a buffer that is reused.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from environment import commit_of
from facemix.calibration import mixtures
from facemix.data import MEAN, STD, load_orl, normalise
from facemix.demo.models import train_baseline, train_mixed
from facemix.demo.settings import DemoSettings
from facemix.environment import environment
from facemix.export import export_edge
from facemix.partition import partition
from facemix.wire import get_features, get_outputs, packed_features, put_outputs
from facemix.wire.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from pytest_benchmark.utils import get_commit_info
from result_file import write
from torch import Tensor, nn
from tqdm import tqdm
from wire_table import COMMITTED, table

import facemix_ops as fo
from facemix_ops.edge import Bundle, EdgeModel
from facemix_ops.edge.wire import LARGEST
from facemix_ops.native import C

FLOATS = {"float32": (torch.float32, "FP32"), "float16": (torch.float16, "FP16"), "bfloat16": (torch.bfloat16, "BF16")}
# Ways to choose the end of int8's range, of values [C, n]; the first is what export_edge does.
RANGES: dict[str, Callable[[Bundle, np.ndarray], np.ndarray]] = {
    "int8": lambda bundle, _: LARGEST * bundle.scales,
    "int8, to the largest value": lambda _, values: np.abs(values).max(1),
    "int8, to the 99.9th percentile": lambda _, values: np.percentile(np.abs(values), 99.9, 1),
}


class Contestant:
    """The first layer for one wire dtype, and what becomes of its payload in the cloud."""

    def __init__(self, bundle: Bundle, dtype: torch.dtype, datatype: str, scales: np.ndarray | None = None) -> None:
        self.weight, self.bias = torch.from_numpy(bundle.weight.copy()), torch.from_numpy(bundle.bias.copy())
        self.dtype, self.datatype, self.scales = dtype, datatype, scales
        if scales is not None:
            unit = torch.from_numpy(scales)
            self.weight, self.bias = self.weight / unit.reshape(-1, 1, 1, 1), self.bias / unit
        self.options = {
            "stride": bundle.stride, "padding": bundle.padding, "dilation": bundle.dilation,
            "activation": bundle.activation, "pool": bundle.pool, "out_dtype": dtype,
        }  # fmt: skip

    def mix(self, x: Tensor, key: fo.MixKey, out: Tensor | None = None) -> Tensor:
        return fo.conv_mix(x, self.weight, self.bias, key, out=out, **self.options)

    def reply(self, payload: Tensor, cloud: nn.Module) -> tuple[Tensor, int]:
        """The cloud's outputs as the edge reads them, and the bytes that went up."""
        response = ModelInferResponse()
        bits = payload.view(torch.uint16) if payload.dtype == torch.bfloat16 else payload
        scales = None if self.scales is None else np.tile(self.scales, (len(payload), 1))
        request = ModelInferRequest.FromString(packed_features("", "", bits.numpy(), self.datatype, scales))
        features, datatype = get_features(request, tuple(payload.shape[1:]))
        outputs = cloud(torch.from_numpy(features))
        put_outputs(response, outputs.numpy(), datatype)
        answer = get_outputs(response, len(outputs), tuple(outputs.shape[1:]))
        return torch.from_numpy(answer), sum(map(len, request.raw_input_contents))


def contestants(bundle: Bundle, ranges: dict[str, np.ndarray]) -> dict[str, Contestant]:
    """One for each float, and one for each range of int8."""
    found = {name: Contestant(bundle, *kind) for name, kind in FLOATS.items()}
    for name, end in ranges.items():
        found[name] = Contestant(bundle, torch.int8, "INT8", (end / LARGEST).astype(np.float32))
    return found


def accuracies(
    who: dict[str, Contestant], bundle: Bundle, cloud: nn.Module, x: Tensor, identity: Tensor, rounds: int, request: int
) -> dict[str, dict[str, Any]]:
    """Everything but the times, of images `x` in requests of so many, all of them once a round in another order."""
    last = [torch.from_numpy(t.copy()) for t in (bundle.last_weight, bundle.last_bias)]
    found: dict[str, dict[str, Any]] = {name: {"accuracy": [], "bytes": 0, "same": [], "errors": []} for name in who}
    for _ in tqdm(range(rounds), desc="rounds"):
        hits = dict.fromkeys(who, 0)
        for rows in torch.randperm(len(x)).split(request):
            with fo.MixKey.sample(len(rows), bundle.group_size, max_coeff=bundle.max_coeff) as key:
                answers = {
                    name: contestant.reply(contestant.mix(x[rows], key), cloud) for name, contestant in who.items()
                }
                scores = {name: fo.unmix_linear(answer, key, *last) for name, (answer, _) in answers.items()}
            exact = scores["float32"]
            for name, (_, sent) in answers.items():
                found[name]["bytes"] += sent
                found[name]["same"].append((scores[name].argmax(1) == exact.argmax(1)).float())
                found[name]["errors"].append((scores[name] - exact).abs().amax(1) / exact.abs().amax(1))
                hits[name] += int((scores[name].argmax(1) == identity[rows]).sum())
        for name in who:
            found[name]["accuracy"].append(hits[name] / len(x))
    return {
        name: {
            "accuracy": row["accuracy"],
            "agreement": torch.cat(row["same"]).mean().item(),
            "mean_error": torch.cat(row["errors"]).mean().item(),
            "largest_error": torch.cat(row["errors"]).max().item(),
            "bytes_up": row["bytes"] / (rounds * len(x)),
        }
        for name, row in found.items()
    }


def times(who: dict[str, Contestant], x: Tensor, group_size: int, calls: int, label: str) -> dict[str, float]:
    """How many times longer than float32 the mix of `x` takes."""
    key = fo.MixKey.sample(len(x), group_size)
    buffers = {name: contestant.mix(x, key) for name, contestant in who.items()}
    seconds: dict[str, list[float]] = {name: [] for name in who}
    for _ in tqdm(range(calls), desc=label):
        for name, contestant in who.items():
            start = time.perf_counter()
            contestant.mix(x, key, buffers[name])
            seconds[name].append(time.perf_counter() - start)
    return {
        name: median(t / base for t, base in zip(s, seconds["float32"], strict=True)) for name, s in seconds.items()
    }


def stem() -> Bundle:
    """ResNet's first layer, of random weights."""
    draw = np.random.default_rng(0).standard_normal
    weight, last = draw((64, 3, 7, 7)).astype(np.float32), np.zeros((1, 1), np.float32)
    return Bundle(
        name="stem", version=1, network="", image_shape=(224, 224, 3), mean=(0.0,) * 3, std=(1.0,) * 3, weight=weight,
        bias=np.zeros(64, np.float32), stride=(2, 2), padding=(3, 3), dilation=(1, 1), activation="relu", pool=None,
        last_weight=last, last_bias=last[0], group_size=8, max_coeff=None, wire_dtype="float32", classes=None,
        scales=np.full(64, 0.25, np.float32),
    )  # fmt: skip


@torch.inference_mode()
def measure(rounds: int, calls: int, cache: Path) -> dict[str, Any]:
    """All figures, and where they come from."""
    settings = DemoSettings()
    train, test = load_orl(settings.size)
    with torch.inference_mode(False):
        trained = train_mixed(settings, train, train_baseline(settings, train, cache, False), cache, False)
    network = trained.plain()
    channels, *size = test.images.shape[1:]
    pixels = train.images.transpose(0, 2, 3, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edge.safetensors"
        export_edge(
            path, network, (channels, *size), name="wire", group_size=settings.group_size,
            mean=[MEAN] * channels, std=[STD] * channels, max_coeff=settings.max_coeff, calibration=pixels,
        )  # fmt: skip
        bundle = Bundle.load(path)
    values = mixtures(EdgeModel(bundle), pixels)
    who = contestants(bundle, {name: end(bundle, values) for name, end in RANGES.items()})
    cloud, request = partition(network).cloud.eval(), settings.request_groups * settings.group_size
    x = normalise(test.floats())
    large = contestants(stem(), {"int8": LARGEST * stem().scales})
    first = {name: who[name] for name in large}
    where = environment()
    return {
        "environment": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit_of(get_commit_info()),  # of this clone, whatever is installed
            "cpu": where["cpu"],
            "cores": where["cores"],
            "capability": C.capability(),
            "threads": where["threads"],
            "versions": {"python": where["python"], **where["versions"]},
        },
        "images": len(x),
        "group_size": settings.group_size,
        "rounds": rounds,
        "results": accuracies(who, bundle, cloud, x, test.identity, rounds, request),
        "times": {
            "demo, 40 faces": times(first, x[:request], settings.group_size, 20 * calls, "times, demo"),
            "ResNet stem, 8 at 224": times(large, torch.randn(8, 3, 224, 224), 8, calls, "times, stem"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy, error, bytes and time of each wire dtype, on ORL.")
    parser.add_argument("--rounds", type=int, default=20, help="over all faces (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=50, help="timed, of each dtype (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=None, help="folder of trained networks (default: the demo's)")
    parser.add_argument("--json", type=Path, default=COMMITTED, help="result file (default: %(default)s)")
    options = parser.parse_args()
    cache = options.cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facemix"
    data = measure(options.rounds, options.calls, cache)
    print(table(data))
    write(options.json, json.dumps(data, indent=1) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
