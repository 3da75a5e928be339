"""Races our kernels against PyTorch on a GPU: ``python benchmarks/gpu.py``; FACEMIX_BACKEND says which of ours.

    FACEMIX_BACKEND=native python benchmarks/gpu.py --json gpu.json
    FACEMIX_BACKEND=triton python benchmarks/gpu.py --json gpu.json --who facemix eager

The second command adds to the file of the first. Everybody runs first without torch.compile, which takes its time;
then, as long as --seconds lasts, the jobs are raced again with it, forward in bfloat16 first. What time did not allow,
and what failed, is named in the file and by the report; after a failure the exit status is 1. A kernel that never ends,
or breaks the CUDA context, takes the process with it (exit status 3, or a signal's): --resume then runs the others.
``--device cpu`` tries the harness itself, on tiny workloads.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import faulthandler
import json
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_table
import torch
from facemix.models import build
from gpu_contestants import runs, training
from gpu_race import Device, race, roofline, tf32
from gpu_workloads import JOBS, TINY_JOBS, TRAINING_BATCH, Job
from result_file import compact, rounded, write
from workloads import GROUP_SIZE

import facemix_ops
from facemix_ops.native import C

WHO = ("facemix", "eager", "compile")
TRAINING = "training step"
# What one race may take: none is begun later than this before the end.
EAGER_SECONDS, COMPILE_SECONDS, TRAINING_SECONDS = 2, 40, 20
HUNG_SECONDS = 30  # a race that is not over so long after twice its time never will be
LOST = 3  # exit status: nothing else can run in this process


class Bench:
    """One backend's races, in the time that there is. After each ``path`` holds all results so far: what is cut off
    loses its last race."""

    def __init__(self, device: Device, rounds: int, seconds: float, path: Path, resume: bool = False) -> None:
        self.device, self.rounds, self.end, self.path = device, rounds, time.monotonic() + seconds, path
        self.backend = facemix_ops.explain("conv_mix", torch.empty(0, device=device.torch)).split()[3]
        self.results: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.failed: list[str] = []
        self.roofline: dict[str, Any] = {}
        self.head = provenance() | {"machine": device.describe()}
        if resume and path.exists():
            self._resume(json.loads(path.read_text()))

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def run(self, jobs: list[Job], who: set[str], train: bool) -> None:
        """All jobs; those that no time was left for are kept in ``left_out``."""
        self.roofline = self.roofline or roofline(self.device, self.rounds)
        for job in jobs:
            self._race(job, who - {"compile"}, EAGER_SECONDS)
        if train:
            self._try(TRAINING, TRAINING, {"facemix", "eager"}, TRAINING_SECONDS, self._train)
        if "compile" in who:
            for job in jobs:
                self._race(job, who, COMPILE_SECONDS)

    def save(self) -> dict[str, Any]:
        """Writes the file, and returns what it holds; what it held of other backends stays."""
        data = self.head | {"runs": [], "results": []}
        if self.path.exists():
            before = json.loads(self.path.read_text())
            for part in ("runs", "results"):
                data[part] = [entry for entry in before[part] if entry["backend"] != self.backend]
        run = {name: getattr(self, name) for name in ("backend", "rounds", "roofline", "left_out", "failed")}
        data = rounded(data | {"runs": [*data["runs"], run], "results": [*data["results"], *self.results.values()]})
        write(self.path, compact(data))
        return data

    def _resume(self, data: dict[str, Any]) -> None:
        for run in data["runs"]:
            if run["backend"] == self.backend:
                self.failed, self.roofline = run["failed"], run["roofline"]
        for entry in data["results"]:
            if entry["backend"] == self.backend:
                job = f"{entry['op']} {entry['workload']} {entry['dtype']}"
                self.results[TRAINING if entry["op"] == TRAINING else job] = entry

    def _race(self, job: Job, who: set[str], least: float) -> None:
        def entry() -> dict[str, Any]:
            # What fits the L2 cache stays there from one call to the next: memory is no limit.
            limit = {} if job.bytes <= self.device.cache else {"floor": job.floor(self.roofline["rates"])}
            with tf32(job.tf32, torch.backends.cuda.matmul):
                raced = race(self.device, runs(job, self.device.torch, who), self.rounds)
            return {
                "op": job.op, "workload": job.work.name, "dtype": job.dtype, "backend": self.backend,
                "flop": job.counted.flop, "bytes": job.bytes, **limit, **raced,
            }  # fmt: skip

        self._try(job.key, f"{job.key}: {', '.join(sorted(who))}", who, least, entry)

    def _try(self, key: str, name: str, who: set[str], least: float, entry: Callable[[], dict[str, Any]]) -> None:
        """A race of ``least`` seconds at most; whatever fails, the others are still worth the card's time."""
        ran = {one.split("/")[0] for one in self.results.get(key, {}).get("seconds", ())}
        if who <= ran or any(failure.startswith(f"{name}: ") for failure in self.failed):
            return  # before this process
        if self.left() < least:
            self.left_out.append(name)
            return
        print(f"{self.left():4.0f} s left  {name}", flush=True)
        torch.manual_seed(0)
        torch._dynamo.reset()
        self.failed.append(f"{name}: its process ended before it did")  # unless what follows says better
        self.save()
        try:
            with ended_after(2 * least + HUNG_SECONDS):
                self.results[key] = entry()
                self.device.free()
            self.failed.pop()
        except Exception as error:  # of Triton's compiler, too, which are no RuntimeErrors
            traceback.print_exc()
            self.failed[-1] = f"{name}: {type(error).__name__}: {first_line(error)}"
        self.save()
        if self.device.lost():
            sys.exit(LOST)

    def _train(self) -> dict[str, Any]:
        """ResNet-18, mixed and plain."""
        batch, size = (TRAINING_BATCH, 224) if self.device.is_gpu else (16, 64)
        plain = build("resnet18", {"num_classes": 10})
        mixed = facemix_ops.convert(copy.deepcopy(plain), first="conv1", last="fc", group_size=GROUP_SIZE)
        steps = {n: training(m, batch, size, self.device.torch) for n, m in (("facemix", mixed), ("eager", plain))}
        return {
            "op": TRAINING, "workload": f"resnet18 {batch}x{size}x{size}", "dtype": "bfloat16 autocast",
            "backend": self.backend, **race(self.device, steps, self.rounds, capture=False),
        }  # fmt: skip


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Ends the process where it waits so long: for a kernel that never ends, which no signal interrupts."""

    def end() -> None:
        faulthandler.dump_traceback()
        os._exit(LOST)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def provenance() -> dict[str, Any]:
    """Date, commit (of git, else the variable COMMIT) and versions. No names of hosts, users or paths."""

    def git(*command: str) -> str:
        try:
            done = subprocess.run(["git", *command], cwd=Path(__file__).parent, capture_output=True, text=True)
        except FileNotFoundError:
            return ""
        return done.stdout.strip()

    def of(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "none"

    packages = {name: of(name) for name in ("facemix", "torch", "triton", "nvidia-ml-py")}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": (git("rev-parse", "HEAD") or os.environ.get("COMMIT") or "unknown")
        + (" and changes" if git("status", "--porcelain") else ""),
        "versions": {"python": platform.python_version(), "compiler": C.compiler, "cuda": torch.version.cuda or "none",
                     "cuda architectures": C.cuda_architectures or "none"} | packages,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, required=True, help="the result; what it holds of other backends stays")
    parser.add_argument("--who", nargs="+", choices=WHO, default=WHO)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=150, help="after which no job is begun (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="without the races that the file has already")
    parser.add_argument("--only", metavar="TEXT", default="", help="jobs whose name has this in it")
    options = parser.parse_args()
    if "facemix" not in options.who:
        parser.error(f"--who must name facemix, which table and chart compare with, got {' '.join(options.who)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"PyTorch {torch.__version__} sees no GPU; to try the harness itself: --device cpu")
    torch.backends.cudnn.benchmark = True
    device = Device(options.device)
    bench = Bench(device, options.rounds, options.seconds, options.json, options.resume)
    jobs = JOBS if device.is_gpu else TINY_JOBS
    bench.run([job for job in jobs if options.only in job.key], set(options.who), options.only in TRAINING)
    print(gpu_table.text(bench.save()))
    return int(bool(bench.failed))


if __name__ == "__main__":
    sys.exit(main())
