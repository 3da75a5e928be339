"""A GPU's streams, events, graphs and sensors where there is none, for what runs on one: tensors stay on the CPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import gpu_race
import pytest
import torch

CARD = SimpleNamespace(name="a card", uuid="01-23", multi_processor_count=132, total_memory=80 << 30, L2_cache_size=1)


class Event:
    """Takes the time when it is recorded."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


class Stream:
    """The one that work goes to, once it is set."""

    current: Stream | None = None


class Graph:
    """Does nothing when it is replayed; counts how often it was."""

    replays = 0

    def replay(self) -> None:
        Graph.replays += 1


@contextmanager
def capture(graph: Graph, stream: Stream) -> Iterator[None]:
    assert stream is Stream.current, "autograd runs a backward pass on the stream of its forward pass"
    yield


def sensors(told: bool) -> ModuleType:
    """nvidia-ml-py; every question is refused where it is not ``told``."""
    module: Any = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = 1, 2, 0

    def answer(value: Any) -> Any:
        def ask(*_: Any) -> Any:
            if not told:
                raise module.NVMLError("refused")
            return value

        return ask

    module.nvmlInit, module.nvmlDeviceGetHandleByUUID = answer(None), answer("handle")
    module.nvmlSystemGetDriverVersion = answer("580.1")
    module.nvmlDeviceGetEnforcedPowerLimit, module.nvmlDeviceGetPowerUsage = answer(700000), answer(350000)
    module.nvmlDeviceGetClockInfo = lambda card, kind: answer({1: 1980, 2: 2619}[kind])()
    module.nvmlDeviceGetTemperature = answer(45)
    return module


def install(monkeypatch: pytest.MonkeyPatch, told: bool = True) -> None:
    """From here on ``gpu_race.Device("cuda")`` is one of these."""
    cuda = {
        "is_available": lambda: True, "get_device_properties": lambda _: CARD, "empty_cache": lambda: None,
        "Stream": Stream, "Event": Event, "CUDAGraph": Graph, "graph": capture, "synchronize": lambda: None,
        "set_stream": lambda stream: setattr(Stream, "current", stream),
    }  # fmt: skip
    for name, value in cuda.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setitem(sys.modules, "pynvml", sensors(told))
    monkeypatch.setattr(gpu_race, "COPIED_BYTES", 1 << 16)
    monkeypatch.setattr(gpu_race, "MATRIX", 64)
    begin = gpu_race.Device.__init__

    def on_cpu(self: gpu_race.Device, kind: str) -> None:
        begin(self, kind)
        self.torch = torch.device("cpu")

    monkeypatch.setattr(gpu_race.Device, "__init__", on_cpu)
