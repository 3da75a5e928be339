"""What the rounds of one workload say: medians, ratios within rounds, fractions of the peaks."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple


class Quartiles(NamedTuple):
    """The median, and the interval of the middle half."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Of at least one value."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Quartiles(median, low, high)


def digits(value: float) -> str:
    """Three digits, or as many as the whole number has."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ms(seconds: float) -> str:
    """Milliseconds."""
    return digits(1e3 * seconds)


def says_of_memory(data: dict[str, Any]) -> str:
    """What the peers' times hold besides their work, as a sentence for a caption."""
    if data.get("memory kept"):
        return "PyTorch keeps its memory from one call to the next."
    return "PyTorch took fresh memory from the system at each call, which weighs more the larger the result is."


class Result:
    """One entry of a result file's ``results``. Rounds that were not steady count only where none was.

    Contestants are named like "facemix/channels_last+avx2": who, in which layout or order, and what is not as usual.
    """

    def __init__(self, entry: dict[str, Any]) -> None:
        self.op: str = entry["op"]
        self.workload: str = entry["workload"]
        self.threads: int = entry["threads"]
        self.flop: int = entry["flop"]
        self.bytes_read: int = entry["bytes_read"]
        self.bytes_written: int = entry["bytes_written"]
        self.bandwidth: dict[str, float] = entry["bandwidth"]
        self.steady: int = sum(entry["steady"])
        self.rounds: int = len(entry["steady"])
        self.repeated: int = entry["repeated"]
        kept = [i for i, steady in enumerate(entry["steady"]) if steady] or range(self.rounds)
        self.seconds = {name: [times[i] for i in kept] for name, times in entry["seconds"].items()}
        self._peaks = {
            capability: {int(threads): [values[i] for i in kept] for threads, values in by_threads.items()}
            for capability, by_threads in entry["peaks"].items()
        }

    @property
    def peaks(self) -> dict[str, float]:
        """float32 FLOP/s by instruction set, on as many threads as the contestants had."""
        return {capability: statistics.median(values[self.threads]) for capability, values in self._peaks.items()}

    def time(self, name: str) -> Quartiles:
        """Seconds."""
        return quartiles(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> Quartiles:
        """How many times longer ``slow`` takes than ``fast``: quartiles of the ratios within rounds."""
        return quartiles([a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)])

    def of_fma_peak(self, name: str) -> float:
        """The part of the float32 peak, measured in the same rounds with its instructions and threads, that it
        reaches."""
        variant = name.partition("+")[2]
        peaks = self._peaks[variant if variant in self._peaks else next(iter(self._peaks))]
        pairs = zip(self.seconds[name], peaks[1 if variant == "1-thread" else self.threads], strict=True)
        return statistics.median(self.flop / seconds / peak for seconds, peak in pairs)

    def of_write_peak(self, name: str) -> float:
        """The part of the bandwidth of pure writing that its results are written with."""
        written = self.bytes_written / (2 if "+bf16" in name else 1)
        return written / self.time(name).median / self.bandwidth["write"]

    @property
    def ours(self) -> list[str]:
        """Our op in float32 with its output reused, once a layout."""
        return [name for name in self.seconds if _who(name) == "facemix" and "+" not in name]

    def best(self, *who: str) -> str:
        """The fastest contestant of these in any layout; empty where none ran."""
        names = [name for name in self.seconds if _who(name) in who and "+" not in name]
        return min(names, key=lambda name: self.time(name).median, default="")


def _who(name: str) -> str:
    return name.split("/")[0].split("+")[0]
