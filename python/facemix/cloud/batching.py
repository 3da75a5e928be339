"""Rows of many callers, computed together.

A thread of its own takes what waits and runs it; one is enough, for PyTorch spreads a batch over the cores itself.
When it is free it takes the oldest request, and as many of those behind it for the same model as fit: whole requests,
nothing padded. It waits for more only if more is on its way: while messages of other calls are being received, the
oldest request waits for them, `max_delay` at most.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import numpy as np
import torch
from numpy.typing import NDArray

from .metrics import Metrics
from .model import CloudModel
from .refusal import Refusal

__all__ = ["Batcher", "Computed"]

NEW_WEIGHT = 0.2  # of the last batch in the running mean of the seconds that a byte of features takes
RETRY_MS = (10, 30_000)  # shortest and longest hint
FIRST_RETRY_MS = 1000  # before anything was measured

Rows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Computed:
    """What became of a request.

    Attributes:
        outputs: [B, ...], float32.
        compute_ns: how long the batch that held it was computed.
    """

    outputs: Rows
    compute_ns: int


@dataclass(eq=False)
class _Request:
    model: CloudModel
    features: Rows
    deadline: float
    future: asyncio.Future[Computed]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Computes requests in batches. What it offers is for the event loop's thread.

    Args:
        max_batch: most rows of a batch; a request with more is computed alone, in slices of this size.
        max_delay: how long, in seconds, a request may wait for others that are being received.
        capacity: bytes of features, as float32, that may wait or be computed, and of answers that were not sent yet; a
            single request may exceed it where there is no other.
    """

    def __init__(self, max_batch: int, max_delay: float, capacity: int, metrics: Metrics) -> None:
        self._max_batch, self._max_delay, self._capacity, self._metrics = max_batch, max_delay, capacity, metrics
        self._loop = asyncio.get_running_loop()
        self._bytes = self._kept = 0  # of features, and for answers
        self._seconds_per_byte = 0.0
        self._changed = threading.Condition()  # guards the following three
        self._waiting: deque[_Request] = deque()
        self._arriving = 0
        self._stopped = False
        threading.Thread(target=self._work, name="facemix-batches", daemon=True).start()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a message is received and unpacked: others may wait for it."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify()

    def check_room(self, nbytes: int) -> None:
        """Raise a Refusal if there is no room for `nbytes` more."""
        held = self._bytes + self._kept
        if held and held + nbytes > self._capacity:
            hint = round(1000 * self._bytes * self._seconds_per_byte) or FIRST_RETRY_MS
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "queue_full",
                f"the queue must hold {self._capacity} bytes at most, got {nbytes} more than the {held} in it",
                retry_ms=min(max(hint, RETRY_MS[0]), RETRY_MS[1]),
            )

    @contextmanager
    def keeping(self, nbytes: int) -> Iterator[None]:
        """While a request is computed and its answer is sent: room for that answer. Otherwise callers who read none
        would have the server hold as many as they like.
        """
        self._keep(nbytes)
        try:
            yield
        finally:
            self._keep(-nbytes)

    def submit(self, model: CloudModel, features: Rows, deadline: float) -> Awaitable[Computed]:
        """Have `features` [B, ...] computed with whatever else waits for `model`; to be awaited at once.

        Args:
            deadline: by `time.monotonic`; what has not begun by then is dropped, as is the request of a caller that
                was cancelled.

        Raises:
            Refusal: if the queue is full; when awaited, if the deadline passes.
            Exception: when awaited, whatever the model raises for this request alone.
        """
        self.check_room(features.nbytes)
        request = _Request(model, features, deadline, self._loop.create_future())
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
        return self._outcome(request)

    def stop(self) -> None:
        """Let the thread end after the batch that it runs."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    async def _outcome(self, request: _Request) -> Computed:
        self._count(request, 1)
        try:
            return await request.future
        finally:
            self._count(request, -1)
            if request.future.cancelled():
                with self._changed, suppress(ValueError):  # it is not there if its batch has begun
                    self._waiting.remove(request)

    def _keep(self, nbytes: int) -> None:
        self._kept += nbytes
        self._metrics.held(0, nbytes)

    def _count(self, request: _Request, sign: int) -> None:
        self._bytes += sign * request.features.nbytes
        self._metrics.held(sign, sign * request.features.nbytes)

    def _work(self) -> None:
        # Denormal numbers take a CPU many times as long, and a caller may send nothing else. Threads that
        # PyTorch starts from here inherit it.
        torch.set_flush_denormal(True)
        while batch := self._next():
            start = time.perf_counter_ns()
            results = _compute(batch[0].model, [request.features for request in batch], self._max_batch)
            self._tell(self._deliver, batch, results, time.perf_counter_ns() - start)
            del batch, results  # or their memory would be held until the next batch ends

    def _next(self) -> list[_Request]:
        """Wait for a batch; it is empty when there is no more to come."""
        with self._changed:
            while not self._stopped:
                batch, rest = self._choose()
                patience = batch[0].since + self._max_delay - time.monotonic() if batch else None
                full = bool(rest) or sum(len(request.features) for request in batch) >= self._max_batch
                if patience is None or (self._arriving and not full and patience > 0):
                    self._changed.wait(patience)
                    continue
                self._waiting = rest
                return batch
        return []

    def _choose(self) -> tuple[list[_Request], deque[_Request]]:
        """The oldest request with those that can join it, and the others."""
        batch: list[_Request] = []
        rest: deque[_Request] = deque()
        rows, full = 0, False
        for request in self._waiting:
            if batch and (full or request.model is not batch[0].model):
                rest.append(request)
            elif request.future.done():
                continue  # cancelled a moment ago
            elif time.monotonic() >= request.deadline:
                self._tell(_expire, request.future)
            elif batch and rows + len(request.features) > self._max_batch:
                full = True  # smaller requests behind it do not overtake it
                rest.append(request)
            else:
                batch.append(request)
                rows += len(request.features)
        return batch, rest

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Have the event loop call `function`. It may have been closed: then nobody waits any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, batch: list[_Request], results: list[Rows | Exception], elapsed: int) -> None:
        nbytes = sum(request.features.nbytes for request in batch)
        pace = elapsed / 1e9 / nbytes
        self._seconds_per_byte += (pace - self._seconds_per_byte) * (NEW_WEIGHT if self._seconds_per_byte else 1)
        start = time.monotonic() - elapsed / 1e9
        self._metrics.computed(
            sum(len(request.features) for request in batch),
            elapsed / 1e9,
            [start - request.since for request in batch],
        )
        for request, result in zip(batch, results, strict=True):
            if request.future.done():
                continue
            if isinstance(result, Exception):
                request.future.set_exception(result)
            else:
                request.future.set_result(Computed(result, elapsed))


def _compute(model: CloudModel, features: list[Rows], max_batch: int) -> list[Rows | Exception]:
    """The outputs of each of `features`, or why there are none."""
    try:
        rows = features[0] if len(features) == 1 else np.concatenate(features)
        slices = [model.run(rows[i : i + max_batch]) for i in range(0, len(rows), max_batch)]
        outputs = slices[0] if len(slices) == 1 else np.concatenate(slices)
        if len(outputs) != len(rows):
            raise ValueError(f"the model must answer with {len(rows)} rows, got {len(outputs)}")
    except Exception as error:
        if len(features) == 1:
            return [error]
        # The fault may be one request's alone, and must not be the others'.
        return [result for one in features for result in _compute(model, [one], max_batch)]
    ends = np.cumsum([len(one) for one in features])
    return list(np.split(outputs, ends[:-1]))


def _expire(future: asyncio.Future[Computed]) -> None:
    if not future.done():
        future.set_exception(
            Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline", "the deadline passed before the request's turn came")
        )
