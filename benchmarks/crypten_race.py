"""ResNet-18 on a 224 x 224 image: split between an edge and a cloud that sees mixtures, and on CrypTen's secret shares.

    python benchmarks/crypten_race.py [--rounds N] [--venv DIR] [--json FILE]

The two promise different things. CrypTen's cloud learns nothing of the image while it keeps to the protocol. Mixing is
obfuscation, from which attacks recover images. The race shows what the stronger promise costs, nothing else. Both run
here over loopback, with weights and pixels drawn at random.

CrypTen 0.4.1 needs neither most of what it lists nor our environment: it has one of its own, which the first run makes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environment
import numpy as np
import torch
from cpuinfo import get_cpu_info
from crypten_table import COMMITTED, section
from edge_contestants import peak_bytes
from facemix.demo.cloud_process import cloud_process
from facemix.export import export_cloud, export_edge
from facemix.models import build
from pytest_benchmark.utils import get_commit_info
from result_file import rounded, write
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

HERE = Path(__file__).resolve().parent
CRYPTEN = "crypten==0.4.1"
NEEDED = ("numpy", "omegaconf", "onnx<1.17")  # of what it lists, besides PyTorch
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
GROUP, SIZE, CHANNELS, OPTIONS = 8, 224, 3, {"num_classes": 1000}
PARTY_SECONDS = 600
WEIGHTS = ("public", "shared")


def crypten_python(folder: Path) -> Path:
    """The interpreter of CrypTen's environment in `folder`, which is made where it is not there."""
    python = folder / "bin" / "python"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        torch_version = f"torch=={torch.__version__.partition('+')[0]}"
        subprocess.run([*pip, "--retries", "2", "--extra-index-url", TORCH_INDEX, torch_version], check=True)
        subprocess.run([*pip, *NEEDED], check=True)
        subprocess.run([*pip, "--no-deps", CRYPTEN], check=True)
        ready.touch()
    return python


def network() -> nn.Module:
    """A ResNet-18 whose batch norms have seen images, so that its features keep a scale that fixed point can hold."""
    torch.manual_seed(0)
    model = build("resnet18", OPTIONS)
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, CHANNELS, SIZE, SIZE))
    return model.eval()


def folded(model: nn.Module) -> dict[str, np.ndarray]:
    """The weights, each batch norm folded into its convolution."""
    modules = dict(model.named_modules())
    weights = {"fc": modules["fc"]}
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            # downsample.0 has its norm in downsample.1, conv1 in bn1.
            head, _, tail = name.rpartition(".")
            norm = f"{head}.1" if tail == "0" else name.replace("conv", "bn")
            weights[head if tail == "0" else name] = fuse_conv_bn_eval(module, modules[norm])
    return {
        f"{name}.{kind}": getattr(layer, kind).detach().numpy()
        for name, layer in weights.items()
        for kind in ("weight", "bias")
    }


def split(model: nn.Module, folder: Path, rounds: int) -> dict[str, Any]:
    """Split inference of one group; memory of both sides."""
    shape = (CHANNELS, SIZE, SIZE)
    edge, cloud, images = folder / "edge.safetensors", folder / "cloud.safetensors", folder / "images.npy"
    export_cloud(cloud, model, "resnet18", OPTIONS, shape, name="race")
    normalised = {"mean": [0.5] * CHANNELS, "std": [0.25] * CHANNELS}
    export_edge(edge, model, shape, name="race", group_size=GROUP, max_coeff=0.6, **normalised)
    np.save(images, np.random.default_rng(0).integers(0, 256, (GROUP, SIZE, SIZE, CHANNELS), np.uint8))
    with cloud_process(cloud) as address:
        script = str(HERE / "crypten_split.py")
        command = [sys.executable, script, str(edge), str(images), address, str(rounds)]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        (server,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        return done | {"images": GROUP, "cloud_peak_bytes": peak_bytes(server)}


def two_party(python: Path, arrays: Path, weights: str, folder: Path) -> list[dict[str, Any]]:
    """What the two parties say of one image."""
    with tempfile.TemporaryDirectory(dir=folder) as meeting:
        parties = []
        for rank in range(2):
            settings = {"RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS": f"file://{meeting}/point"}
            clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            command = [str(python), str(HERE / "crypten_party.py"), str(arrays), weights]
            parties.append(subprocess.Popen(command, env=clean | settings, stdout=subprocess.PIPE, text=True))
        try:
            return [json.loads(party.communicate(timeout=PARTY_SECONDS)[0]) for party in parties]
        finally:
            for party in parties:
                party.kill()
                party.wait()


def crypten_entry(python: Path, model: nn.Module, weights: str, folder: Path, rounds: int) -> dict[str, Any]:
    """`rounds` images through CrypTen, with weights that both parties know ("public") or that are shared out too."""
    images = torch.randn(1, CHANNELS, SIZE, SIZE)
    arrays = folder / "network.npz"
    np.savez(arrays, images=images.numpy(), **folded(model))
    with torch.inference_mode():
        expected = model(images)
    runs = [two_party(python, arrays, weights, folder) for _ in range(rounds)]
    scores = [torch.tensor(parties[0]["scores"]) for parties in runs]
    if any((s.argmax(1) != expected.argmax(1)).any() for s in scores):
        raise RuntimeError("crypten_race: CrypTen must name PyTorch's class, got another")
    return {
        "weights": weights,
        "seconds": [max(party["seconds"] for party in parties) for parties in runs],
        # Each party counts what it sends and what it receives.
        "bytes": sum(party["bytes"] for party in runs[0]) / 2,
        "rounds": runs[0][0]["rounds"],
        "peak_bytes": [max(parties[rank]["peak_bytes"] for parties in runs) for rank in range(2)],
        "deviation": max(float((s - expected).abs().max()) for s in scores),
        "largest_score": float(expected.abs().max()),
    }


def in_one_piece(model: nn.Module, rounds: int) -> list[float]:
    """Seconds of a group in plain PyTorch, nobody hiding anything."""
    images = torch.randn(GROUP, CHANNELS, SIZE, SIZE)
    with torch.inference_mode():
        model(images)
        return [_seconds(lambda: model(images)) for _ in range(rounds)]


def _seconds(run: Any) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Split inference beside CrypTen's two-party computation.")
    parser.add_argument("--rounds", type=int, default=2, help="images through CrypTen (default: %(default)s)")
    parser.add_argument("--venv", type=Path, default=Path(".benchmarks/crypten"), help="CrypTen's environment")
    parser.add_argument("--json", type=Path, default=COMMITTED, help="result file")
    options = parser.parse_args()
    python = crypten_python(options.venv)
    model = network()
    result = environment.describe(get_commit_info(), get_cpu_info())
    result["versions"] |= {"crypten": CRYPTEN.partition("==")[2], "grpcio": version("grpcio")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result |= {
            "size": SIZE,
            "whole": {"images": GROUP, "seconds": in_one_piece(model, 5 * options.rounds)},
            "split": split(model, folder, 5 * options.rounds),
            "crypten": [crypten_entry(python, model, weights, folder, options.rounds) for weights in WEIGHTS],
        }
    write(options.json, json.dumps(rounded(result), indent=1) + "\n")
    print(section(rounded(result)))


if __name__ == "__main__":
    main()
