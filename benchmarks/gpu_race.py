"""Interleaved rounds on a GPU: contestants as CUDA graphs, timed by events, the card's state read beside each time.

A contestant is captured, as many calls in a row as make the graph long against its launch. Every round replays all of
them in an order drawn anew, so that the clocks and the heat of a moment meet everybody.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import torch

Run = Callable[[], Any]

GRAPH_SECONDS = 2e-4  # a graph holds so many calls that it takes about this
TRIED_CALLS, MOST_CALLS = 4, 64
MEASURED_SECONDS = 2e-3  # and is replayed until a measurement takes about this
LEAST_RUNS = 5  # in a row, of what is not captured: what the host does while the card computes must show
COPIED_BYTES, MATRIX = 2 << 30, 8192
RATES = {"bfloat16": (torch.bfloat16, False), "tf32": (torch.float32, True), "float32": (torch.float32, False)}


class Device:
    """Where everything runs: one stream of a GPU, or the CPU, to try the harness itself."""

    def __init__(self, kind: str) -> None:
        self.torch = torch.device(kind)
        self.is_gpu = kind == "cuda"
        self.cache = 0  # bytes of L2
        if self.is_gpu:
            import pynvml

            # Autograd runs a backward pass on the stream of its forward pass: all of it is captured on this one.
            self.stream = torch.cuda.Stream()
            torch.cuda.set_stream(self.stream)
            self.cache = torch.cuda.get_device_properties(self.torch).L2_cache_size
            self._nvml, self._card = pynvml, None
            with suppress(pynvml.NVMLError):  # what there is in a part of a card, or in a container
                pynvml.nvmlInit()
                uuid = f"GPU-{torch.cuda.get_device_properties(self.torch).uuid}"
                self._card = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def describe(self) -> dict[str, Any]:
        """What it is, for a result file."""
        if not self.is_gpu:
            return {"name": "cpu"}
        properties, n = torch.cuda.get_device_properties(self.torch), self._nvml
        told = {
            "driver": n.nvmlSystemGetDriverVersion,
            "power limit, W": lambda: n.nvmlDeviceGetEnforcedPowerLimit(self._card) / 1000,
        }
        size = {"multiprocessors": properties.multi_processor_count, "memory": properties.total_memory}
        return {"name": properties.name} | size | self._ask(told)

    def state(self) -> dict[str, float]:
        """Clocks, power and temperature now."""
        n, card = self._nvml, self._card
        return self._ask(
            {
                "SM, MHz": lambda: n.nvmlDeviceGetClockInfo(card, n.NVML_CLOCK_SM),
                "memory, MHz": lambda: n.nvmlDeviceGetClockInfo(card, n.NVML_CLOCK_MEM),
                "power, W": lambda: n.nvmlDeviceGetPowerUsage(card) / 1000,
                "temperature, C": lambda: n.nvmlDeviceGetTemperature(card, n.NVML_TEMPERATURE_GPU),
            }
        )

    def _ask(self, questions: dict[str, Run]) -> dict[str, Any]:
        """The answers; what a card or a driver does not tell is left out."""
        answers = {}
        for what, question in questions.items():
            with suppress(self._nvml.NVMLError):
                answers[what] = question()
        return answers

    def free(self) -> None:
        """What nobody holds any more goes back to the card."""
        if self.is_gpu:
            torch.cuda.empty_cache()

    def lost(self) -> bool:
        """Whether a kernel has taken the CUDA context with it, so that nothing else can run in this process."""
        if self.is_gpu:
            try:
                torch.cuda.synchronize()
            except RuntimeError:
                return True
        return False

    def seconds(self, run: Run, repeats: int) -> float:
        """Of one of so many runs in a row."""
        return self.measured(run, repeats)[0]

    def measured(self, run: Run, repeats: int) -> tuple[float, dict[str, float]]:
        """The same, and the state of the card meanwhile; the power is that of the last second, as the card tells it."""
        if not self.is_gpu:
            begin = time.perf_counter()
            for _ in range(repeats):
                run()
            return (time.perf_counter() - begin) / repeats, {}
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for _ in range(repeats):
            run()
        last.record()
        state = self.state()  # before it is waited for: afterwards the card is idle
        last.synchronize()
        return first.elapsed_time(last) / 1000 / repeats, state

    def graph(self, run: Run, calls: int) -> Run:
        """So many calls of ``run`` as one graph, which must not be kept longer than what it reads."""
        if not self.is_gpu:
            return lambda: [run() for _ in range(calls)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for _ in range(calls):
                run()
        return graph.replay


class Contestant:
    """``run`` on a device, captured unless it may not be, warm, and with its number of repeats."""

    def __init__(self, device: Device, run: Run, capture: bool = True) -> None:
        for _ in range(3):
            run()
        self.run, self.calls, least = run, 1, LEAST_RUNS
        if capture:  # a call by itself is as long as its launches, which a graph has not
            tried = device.graph(run, TRIED_CALLS)
            tried()
            once = device.seconds(tried, 3) / TRIED_CALLS
            self.calls, least = min(MOST_CALLS, max(1, round(GRAPH_SECONDS / once))), 1
            self.run = device.graph(run, self.calls)
            del tried
        self.run()
        self.repeats = max(least, round(MEASURED_SECONDS / device.seconds(self.run, 2)))
        self.device, self.seconds = device, []
        self.state: dict[str, list[float]] = {}

    def measure(self) -> None:
        """Once more."""
        seconds, state = self.device.measured(self.run, self.repeats)
        self.seconds.append(seconds / self.calls)
        for name, value in state.items():
            self.state.setdefault(name, []).append(value)


def race(device: Device, runs: dict[str, Run], rounds: int, capture: bool = True) -> dict[str, Any]:
    """Times by contestant, one a round, and the state of the card beside each, as a part of a result."""
    contestants = {name: Contestant(device, run, capture) for name, run in runs.items()}
    for number in range(rounds):
        for name in Random(number).sample(list(contestants), len(contestants)):
            contestants[name].measure()
    return {
        "seconds": {name: c.seconds for name, c in contestants.items()},
        "state": {name: {what: statistics.median(v) for what, v in c.state.items()} for name, c in contestants.items()},
    }


@contextmanager
def tf32(allowed: bool, *modules: Any) -> Iterator[None]:
    """Whether float32 is multiplied in TF32 by these of ``torch.backends``."""
    before = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = allowed
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.allow_tf32 = value


def roofline(device: Device, rounds: int) -> dict[str, Any]:
    """The limits of this machine: bytes a second that a copy reads and writes, FLOP/s of products of large matrices."""
    shrink = 1 if device.is_gpu else 64
    size = MATRIX // shrink
    # Of random bytes: a card is faster with zeros, which change nothing on its way.
    source = torch.randint(256, (COPIED_BYTES // shrink**2,), dtype=torch.uint8, device=device.torch)
    target = torch.empty_like(source)
    work = {"copy": 2 * source.numel()} | dict.fromkeys(RATES, 2 * size**3)
    runs: dict[str, Run] = {"copy": lambda: target.copy_(source)}
    found: dict[str, Any] = race(device, runs, rounds)
    for name, (dtype, allowed) in RATES.items():
        a, b = (torch.randn(size, size, device=device.torch).to(dtype) for _ in range(2))
        with tf32(allowed, torch.backends.cuda.matmul):  # read when a product is captured
            one = race(device, {name: lambda a=a, b=b: a @ b}, rounds)
        found = {part: found[part] | one[part] for part in found}
    rates = {name: work[name] / statistics.median(times) for name, times in found["seconds"].items()}
    return {"rates": rates, "state": found["state"]}
