"""One request: mix once, send, wait, un-mix; what failed on the way is sent again as it is.

Images that are mixed twice, in other groups, are given away: the span of a group of the one and that of a group of the
other meet in the image that both hold. The same bytes twice tell nothing that they did not tell once.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facemix.wire import DATATYPE_OF

from .answer import Meter
from .budget import Budget
from .connection import Connection
from .errors import CloudError, CloudMismatch, CloudOverloaded, CloudReplyError
from .failures import TRANSIENT
from .messages import Reply, cut, pack, row_bytes, unpack

__all__ = ["Sender", "all_of", "pause_after"]

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds before the second attempt, and before any
SMALL_BYTES = 256 * 1024


class Sender:
    """Sends mixed requests. Each has one key and one payload, for all its attempts.

    Args:
        half: the edge's half of the network.
        attempts: how often to send a request, and how often to ask before that what the server takes.
        message_bytes: largest message, but for its header and unless a single row is larger.
        max_messages: how many may be under way at once.
    """

    def __init__(self, half: Any, attempts: int, message_bytes: int, max_messages: int) -> None:
        self._half, self._attempts, self._message_bytes = half, attempts, message_bytes
        self._slots, self._budget = asyncio.Semaphore(max_messages), Budget(2 * max_messages)
        # One mixes the next request while the other packs messages of the last. The kernels have threads of their own.
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="facemix-edge")

    async def send(
        self, connection: Connection, images: Callable[[], NDArray[np.uint8]], rows: int, deadline: float, meter: Meter
    ) -> Any:
        """Return the half's Result for the images [rows, H, W, C] that `images` returns: whole groups.

        Args:
            deadline: by `time.monotonic`.

        Raises:
            CloudError: of the last attempt. There is no further one where that makes no sense, or the pause before it
                would not end before the deadline.
        """
        rows *= getattr(self._half, "rows_per_image", 1)
        wire_dtype = await self._tried(lambda: connection.wire_dtype(deadline - time.monotonic()), deadline)
        datatype = DATATYPE_OF[wire_dtype]
        parts = cut(rows, row_bytes(self._half.bundle.features_shape, datatype), self._message_bytes)
        async with self._budget.inside(len(parts)):  # also while it waits to be sent again: its payload is kept
            request, seconds = await self.run(
                lambda: self._half.mix(images(), wire_dtype=wire_dtype), lambda unused: unused.close()
            )
            try:
                meter.edge_seconds += seconds
                outputs = await self._tried(
                    lambda: self._exchange(connection, datatype, request, parts, deadline, meter), deadline
                )
                try:
                    result, seconds = await self.run(lambda: request.classify(outputs))
                except (TypeError, ValueError) as error:
                    raise CloudReplyError(f"Client: the reply must suit this edge's network: {error}") from error
                meter.edge_seconds += seconds
                meter.rows += rows
                return result
            finally:
                request.close()

    async def close(self) -> None:
        """Wait for what the threads are doing."""
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _tried(self, once: Callable[[], Coroutine[Any, Any, T]], deadline: float) -> T:
        """What `once` returns, after a pause again where it fails in a way that may pass."""
        for attempt in range(1, self._attempts + 1):
            try:
                return await once()
            except TRANSIENT as error:
                pause = pause_after(error, attempt)
                if attempt == self._attempts or time.monotonic() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _exchange(
        self, connection: Connection, datatype: str, request: Any, parts: list[slice], deadline: float, meter: Meter
    ) -> NDArray[np.float32]:
        """Send the payload of `request`, cut into `parts`, and return the cloud's outputs [B, ...]. The bytes are the
        same each time, in `datatype`, whatever the server would rather have by now.
        """
        await connection.wire_dtype(deadline - time.monotonic())  # by now another network may be there
        meter.attempts += 1
        bundle, payload = self._half.bundle, request.payload
        scales = request.scales if datatype == "INT8" else None

        async def exchange(part: slice) -> Reply:
            async with self._slots:
                scale = None if scales is None else scales[part]
                message, _ = await self.run(lambda: pack(bundle, payload[part], scale, datatype))
                meter.messages += 1
                meter.bytes_up += len(message)
                data = await connection.infer(message, deadline - time.monotonic())
            meter.bytes_down += len(data)
            work = partial(unpack, data, bundle, part.stop - part.start)
            # Small outputs are not worth a hop to another thread.
            return work() if len(data) <= SMALL_BYTES else (await self.run(work))[0]

        start = time.monotonic()
        try:
            replies: list[Reply] = await all_of(exchange(part) for part in parts)
        finally:
            meter.waits.append((start, time.monotonic()))
        if len({reply.network for reply in replies}) > 1:
            raise CloudMismatch("Client: all messages of a request must be answered by one network, got several")
        meter.batches.update(reply.compute_ns for reply in replies if reply.compute_ns is not None)
        return np.concatenate([reply.outputs for reply in replies])

    async def run(self, work: Callable[[], T], undo: Callable[[T], object] | None = None) -> tuple[T, float]:
        """Return what `work` returns in a thread, and how long it took. Nobody can stop a thread: if the caller goes,
        `undo` gets the result when there is one.
        """

        def timed() -> tuple[T, float]:
            start = time.perf_counter()
            return work(), time.perf_counter() - start

        future = self._pool.submit(timed)
        try:
            return await asyncio.wrap_future(future)
        except BaseException:
            if undo is not None:
                future.add_done_callback(lambda done: _undo(done, undo))
            raise
        finally:
            del future  # see `all_of`


def pause_after(error: CloudError, attempt: int) -> float:
    """Seconds to wait after attempt 1, 2, ... failed: twice as long each time, and as long as the server asks for.
    The jitter is full: clients that failed together do not come back together.
    """
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
    asked = error.retry_after if isinstance(error, CloudOverloaded) else None
    return longest * secrets.randbelow(1000) / 1000 + (asked or 0.0)


def _undo(done: Future[tuple[T, float]], undo: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result()[0])


async def all_of(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all at once, one or more, and return their results in order. The first that fails ends the others, and is
    raised when they are gone.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # An error leads to the frames that it passed, and these must not lead back to it: until the garbage collector
        # comes along, such a ring would hold payloads and connections.
        del tasks, task
