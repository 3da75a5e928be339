"""Interleaved rounds: every contestant once a round, in an order drawn anew, beside the FMA peak of that moment.

Shared machines change speed from second to second, and two virtual CPUs may share one core for a while. So contestants
are compared within a round, never across rounds, and a round in which the threads did not add up is run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TypeVar

import torch
from torch import Tensor

from facemix_ops.native import C

T = TypeVar("T")
Contestants = dict[str, Callable[[], Tensor]]

MIN_SECONDS = 0.005  # a contestant repeats its work until one measurement takes about this
PAUSE_SECONDS = 0.05  # before a measurement: another runtime's threads spin for a while after their work
PEAK_SECONDS = 0.01
STEADY = 0.95  # of perfect scaling: 1.9 for two threads
ATTEMPTS = 4  # at a round; the last counts in any case, and is marked
WAITS, WAIT_SECONDS = 20, 0.1  # for threads to add up before a round
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}  # of the largest value


class Race:
    """The rounds of one workload on ``threads`` threads. The contestants should have run before.

    Attributes:
        times: seconds by contestant, one a round.
        peaks: float32 FLOP/s by instruction set and by threads ("1" and more), one a round.
        steady: whether the threads added up, one a round.
        repeated: how often a round was thrown away because they did not.
    """

    def __init__(self, contestants: Contestants, threads: int) -> None:
        self.times: dict[str, list[float]] = {name: [] for name in contestants}
        self.peaks: dict[str, dict[str, list[float]]] = {
            capability: {str(n): [] for n in sorted({1, threads})} for capability in capabilities()
        }
        self.steady: list[bool] = []
        self.repeated = 0
        self._contestants, self._threads = contestants, threads
        self._repeats = {name: _repeats(run) for name, run in contestants.items()}

    def round(self) -> None:
        """Times every contestant once, in another order each round: nobody always follows the same one."""
        names = list(self._contestants)
        order = Random(len(self.steady)).sample(names, len(names))
        for attempt in range(ATTEMPTS):
            before = self._peaks_when_steady()
            times = {name: self._time(name) for name in order}
            after = self._peaks_now()
            steady = self._add_up(before) and self._add_up(after)
            if steady or attempt == ATTEMPTS - 1:
                break
            self.repeated += 1
        self.steady.append(steady)
        for name in names:
            self.times[name].append(times[name])
        for capability, by_threads in self.peaks.items():
            for i, values in enumerate(by_threads.values()):
                values.append((before[capability][i] + after[capability][i]) / 2)

    def _time(self, name: str) -> float:
        time.sleep(PAUSE_SECONDS)
        self._contestants[name]()
        return _seconds(self._contestants[name], self._repeats[name])

    def _peaks_when_steady(self) -> dict[str, list[float]]:
        for _ in range(WAITS):
            peaks = self._peaks_now()
            if self._add_up(peaks):
                break
            time.sleep(WAIT_SECONDS)
        return peaks

    def _add_up(self, peaks: dict[str, list[float]]) -> bool:
        alone, together = peaks[capabilities()[0]][0], peaks[capabilities()[0]][-1]
        return together >= STEADY * self._threads * alone

    def _peaks_now(self) -> dict[str, list[float]]:
        time.sleep(PAUSE_SECONDS)
        peaks: dict[str, list[float]] = {}
        for capability, by_threads in self.peaks.items():
            runs = [partial(C.fma_peak, int(threads), PEAK_SECONDS) for threads in by_threads]
            peaks[capability] = [with_capability(capability, run)() for run in runs]
        return peaks


def capabilities() -> list[str]:
    """The instruction sets to race: the one in use, and AVX2, which is what most CPUs have."""
    return list(dict.fromkeys(name for name in (C.capability(), "avx2") if name in C.available_capabilities()))


def with_variants(name: str, run: Callable[[], Tensor]) -> Contestants:
    """``run`` as it is, on the kernels of other instruction sets, and on one thread: name, name+avx2, name+1-thread."""
    contestants = {name: run}
    for other in capabilities()[1:]:
        contestants[f"{name}+{other}"] = with_capability(other, run)
    if torch.get_num_threads() > 1:
        contestants[f"{name}+1-thread"] = on_one_thread(run)
    return contestants


def with_capability(name: str, run: Callable[[], T]) -> Callable[[], T]:
    """``run`` on the kernels of one instruction set."""

    def forced() -> T:
        before = C.capability()
        C.use_capability(name)
        try:
            return run()
        finally:
            C.use_capability(before)

    return forced


def on_one_thread(run: Callable[[], T]) -> Callable[[], T]:
    """``run`` on one thread of however many there are."""

    def alone() -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return run()
        finally:
            torch.set_num_threads(before)

    return alone


def check_agreement(contestants: Contestants, expected: Tensor) -> None:
    """Raises AssertionError, naming the contestant, where one does not compute ``expected`` to rounding."""
    for name, run in contestants.items():
        actual = run()
        torch.testing.assert_close(
            actual.float(),
            expected,
            rtol=0,
            atol=TOLERANCE[actual.dtype] * expected.abs().max().item(),
            msg=f"{name} disagrees: {{}}".format,
        )


def _repeats(run: Callable[[], Tensor]) -> int:
    return max(1, round(MIN_SECONDS / _seconds(run, 1)))


def _seconds(run: Callable[[], Tensor], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - begin) / repeats
