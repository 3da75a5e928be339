"""What the benchmarks share: threads, the race, and the result file. ``--benchmark-min-rounds`` sets the rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import environment
import pytest
import torch
from kept_memory import keep_memory
from race import Contestants, Race, check_agreement
from report import text_table
from result_file import rounded
from torch import Tensor

from facemix_ops.native import C

Entries = list[dict[str, Any]]
RESULTS = pytest.StashKey[Entries]()
MEMORY_KEPT = pytest.StashKey[bool]()
MAX_THREADS = torch.get_num_threads()
TRAFFIC_BYTES, TRAFFIC_SECONDS = 256 << 20, 0.05  # far more than a cache holds


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = []
    config.stash[MEMORY_KEPT] = keep_memory()


@pytest.fixture(autouse=True)
def _seeded_without_gradients() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()  # compiled code has the number of threads built in
    with torch.no_grad():
        yield


@pytest.fixture(params=sorted({1, MAX_THREADS}), ids=lambda n: f"{n}-threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many threads everybody has."""
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(MAX_THREADS)


@pytest.fixture
def race(request: pytest.FixtureRequest, benchmark: Any, threads: int) -> Callable[..., None]:
    """``race(op, work, contestants, expected)``: checks that all compute ``expected``, times them, keeps the result.

    ``yardsticks`` are timed along and compute something else.
    """

    def run(
        op: str, work: Any, contestants: Contestants, expected: Tensor, yardsticks: Contestants | None = None
    ) -> None:
        check_agreement(contestants, expected)
        race = Race(contestants | (yardsticks or {}), threads)
        benchmark.pedantic(race.round, rounds=request.config.getoption("benchmark_min_rounds"))
        result = {
            "op": op,
            "workload": work.name,
            "threads": threads,
            "flop": work.flop,
            "bytes_read": work.read,
            "bytes_written": work.written,
            "bandwidth": {
                "write": C.write_peak(threads, TRAFFIC_BYTES, TRAFFIC_SECONDS),
                "copy": C.write_peak(threads, TRAFFIC_BYTES, TRAFFIC_SECONDS, copy=True),
            },
            "peaks": race.peaks,
            "steady": race.steady,
            "repeated": race.repeated,
            "seconds": race.times,
        }
        request.config.stash[RESULTS].append(result)

    return run


def pytest_benchmark_generate_json(
    config: pytest.Config, machine_info: dict[str, Any], commit_info: dict[str, Any]
) -> dict[str, Any]:
    """Our own file in the place of pytest-benchmark's, which has one time a benchmark, and the host's name."""
    where = environment.describe(commit_info, machine_info["cpu"]) | {"memory kept": config.stash[MEMORY_KEPT]}
    return where | {"results": rounded(config.stash[RESULTS])}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """All contestants of all workloads."""
    if config.stash[RESULTS]:
        terminalreporter.section("facemix benchmarks")
        terminalreporter.write_line(text_table(config.stash[RESULTS]))
