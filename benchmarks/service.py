"""Split inference as a service, on this machine's loopback: under load, over time, and against a network in one piece.

    python benchmarks/service.py [PART ...] [--rounds N] [--seconds S] [--minutes M] [--json FILE]

Parts:
    load   many connections ask at once: dynamic batching, no batching, and KServe, with the same clients
    soak   real edge clients for some minutes, every answer checked: resident memory of both sides
    split  ResNet-18, 32 images of 224 x 224, groups of 8: edge and cloud against the network in one piece in a process

Clients and clouds share the cores of this machine. The rounds of the contestants are interleaved; figures are medians.
Ends with an error if any answer was wrong. Without parts it runs all, and merges them into FILE.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environment
import numpy as np
import psutil
import torch
from cpuinfo import get_cpu_info
from pytest_benchmark.utils import get_commit_info
from result_file import rounded, write
from service_parts import FACES, GROUP, HERE, MEAN, MIB, RESNETS, STD, Network, cloud, resident_bytes, run
from service_table import COMMITTED, text

# None: what `facemix serve` does by itself. A request of the load holds one group.
SERVERS: dict[str, tuple[str, ...]] = {
    "facemix": (),
    "facemix, no batching": ("--max-batch", str(GROUP), "--max-delay-ms", "0"),
    "KServe": ("--engine", "kserve"),
}
PACKAGES = ("facemix", "torch", "numpy", "grpcio", "protobuf", "kserve")
SOAK_CLIENTS, SOAK_IMAGES = 8, 64
SAMPLE_SECONDS = 1.0
BATCH, WHOLES = 32, ("contiguous", "channels_last", "folded")
# Largest error of a score, as a part of the largest score. The network of random weights is exact but for rounding.
TOLERANCE = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2, "int8": 2e-1}


def say(message: str) -> None:
    """Progress."""
    print(f"service: {message}", file=sys.stderr, flush=True)


def truth(network: Network, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C] of noise, and what the network in one piece makes of them."""
    images = network.images(count)
    with torch.inference_mode():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return images, network.build()((pixels - MEAN) / STD).numpy()


def load(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each server and number of clients, its figures medians over the rounds."""
    model, bundle = FACES.export(folder)
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        clouds = {name: stack.enter_context(cloud(model, *SERVERS[name])) for name in options.servers}
        for turn in range(options.rounds):
            for clients in options.clients:
                for name, server in clouds.items():
                    say(f"load, round {turn + 1} of {options.rounds}: {clients} clients, {name}")
                    row = run("service_load.py", server.address, bundle, clients, options.seconds)
                    if row["wrong"]:
                        raise RuntimeError(f"{row['wrong']} wrong answers of {name} to {clients} clients")
                    rows.setdefault((name, clients), []).append(row | {"resident_bytes": server.resident_bytes})
    figures = ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "rejections", "resident_bytes")
    return [
        {"server": name, "clients": clients}
        | {figure: statistics.median(row[figure] for row in measured) for figure in figures}
        | {"requests": sum(row["requests"] for row in measured), "errors": [row["errors"] for row in measured]}
        for (name, clients), measured in rows.items()
    ]


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Counts of answers, and resident memory of both sides every second."""
    model, bundle = FACES.export(folder)
    images, scores = truth(FACES, SOAK_IMAGES)
    np.savez(folder / "truth.npz", images=images, scores=scores)
    samples: list[tuple[float, int, int]] = []
    with cloud(model) as server:
        arguments = [server.address, bundle, folder / "truth.npz", SOAK_CLIENTS, 60 * options.minutes]
        command = [sys.executable, str(HERE / "service_soak.py"), *map(str, arguments)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            watched, start = psutil.Process(child.pid), time.monotonic()
            while child.poll() is None:
                with contextlib.suppress(psutil.Error):  # it may end just now
                    samples.append((time.monotonic() - start, server.resident_bytes, resident_bytes(watched)))
                if len(samples) % 30 == 1:
                    say(f"soak, {samples[-1][0]:.0f} s of {60 * options.minutes:.0f}")
                time.sleep(SAMPLE_SECONDS)
            assert child.stdout is not None
            output = child.stdout.read()
    if child.returncode:
        raise RuntimeError(f"service_soak.py ended with exit status {child.returncode}")
    counts = json.loads(output)
    if counts["wrong"]:
        raise RuntimeError(f"{counts['wrong']} wrong answers of {counts['answers']}")
    seconds, server_bytes, client_bytes = zip(*samples, strict=True)
    return {
        "minutes": options.minutes,
        "clients": SOAK_CLIENTS,
        "counts": counts,
        "cloud": memory(seconds, server_bytes),
        "edge": memory(seconds, client_bytes),
    }


def memory(seconds: tuple[float, ...], sizes: tuple[int, ...]) -> dict[str, float]:
    """MiB at the ends of the last three quarters of the time, their slope in MiB a minute, and the peak. The first
    quarter fills pools and caches.
    """
    kept = slice(len(seconds) // 4, None)
    times, mib = np.array(seconds[kept]) / 60, np.array(sizes[kept]) / MIB
    slope, offset = np.polyfit(times, mib, 1) if len(times) > 1 else (0.0, mib[0])
    return {
        "first_mib": float(offset + slope * times[0]),
        "last_mib": float(offset + slope * times[-1]),
        "mib_a_minute": float(slope),
        "peak_mib": max(sizes) / MIB,
    }


def split(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """By activation: figures of every round of each contestant, and for those that are split, where the time went."""
    return {activation: compare(RESNETS[activation], options, folder) for activation in options.activations}


def compare(network: Network, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Lists of the figures of all rounds, by contestant."""
    model, bundle = network.export(folder)
    images, scores = truth(network, BATCH)
    files = [folder / f"{network.name}-{kind}.npy" for kind in ("images", "scores")]
    for file, array in zip(files, (images, scores), strict=True):
        np.save(file, array)
    data = [*files, options.threads]
    rounds: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(cloud(model, "--threads", str(options.threads)))
        contestants = {
            f"in one piece, {kind}": stack.enter_context(asked("whole", network.activation, kind, *data))
            for kind in WHOLES
        } | {
            f"split, {dtype}": stack.enter_context(asked("split", server.address, bundle, dtype, *data))
            for dtype in options.dtypes
        }
        for turn in range(-1, options.split_rounds):  # the first one warms up
            say(f"split, {network.name}, round {turn + 1} of {options.split_rounds}")
            for name, ask in contestants.items():
                row = ask()
                checked = network.activation == "prelu" or not name.startswith("split")
                allowed = TOLERANCE.get(name.rpartition(" ")[2], TOLERANCE["float32"])
                if checked and not row["error"] < allowed:
                    raise RuntimeError(f"scores of {name} must be within {allowed:g}, got {row['error']:g}")
                if turn >= 0:
                    rounds.setdefault(name, []).append(row)
    return {
        name: {figure: [row[figure] for row in rows] for figure in rows[0] if figure != "error"}
        for name, rows in rounds.items()
    }


@contextlib.contextmanager
def asked(*arguments: Any) -> Any:
    """A function that lets a process of service_split.py classify once."""
    command = [sys.executable, str(HERE / "service_split.py"), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def ask() -> dict[str, float]:
            stdin.write("\n")
            stdin.flush()
            line = stdout.readline()
            if not line:
                raise RuntimeError(f"{' '.join(command)} ended with exit status {process.wait()}")
            return json.loads(line)

        yield ask
        stdin.close()


PARTS: dict[str, Callable[[argparse.Namespace, Path], Any]] = {"load": load, "soak": soak, "split": split}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="of the load (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each load (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256], help="(default: %(default)s)")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS), help="(default: all)")
    parser.add_argument("--minutes", type=float, default=0.5, help="of the soak (default: %(default)s)")
    parser.add_argument("--split-rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument(
        "--dtypes", nargs="+", choices=TOLERANCE, default=["float32", "float16", "int8"], help="of the wire"
    )
    parser.add_argument("--activations", nargs="+", choices=RESNETS, default=list(RESNETS), help="(default: all)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each contestant of the split")
    parser.add_argument("--json", type=Path, default=COMMITTED, help="result file (default: %(default)s)")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"PART must be one of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")

    data = json.loads(options.json.read_text()) if options.json.exists() else {}
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            result = PARTS[part](options, Path(folder))
        where = environment.describe(get_commit_info(), get_cpu_info(), PACKAGES)
        data[part] = {"environment": where, "result": rounded(result)}
        write(options.json, json.dumps(data, indent=1) + "\n")  # what comes next may fail
    print(text(data))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
