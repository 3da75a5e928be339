"""The client for programs with an event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Iterable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from facemix.wire import DATATYPE_OF
from facemix_ops.edge.preprocess import check_images
from facemix_ops.edge.result import result_of

from .answer import Answer, Meter, Prediction
from .connection import Connection, check_process
from .errors import CloudTimeout
from .grouping import Decoys, compose
from .loading import check_half
from .messages import reply_bytes
from .request import Sender, all_of
from .security import Address, Security
from .stream import predictions

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """Classifies images with the help of a cloud that sees mixtures only (paper, figure 3).

    Every request has a fresh key from the operating system, which is zeroed however the request ends. What fails on the
    way is sent again, the same bytes: no call mixes an image twice, and an image that it holds twice is sent once. Who
    shares a group follows from the images: a further call with the same ones sends the same groups. **A call with some
    of them and others** mixes those again in other groups, and such requests give images away, as do several calls
    with the same ones where keys have a bound (docs/security.md).

    Use it as a context manager, or `close` it, in one event loop. Any number of calls may run at once; they share the
    connection and the limits below. A child process must make its own, and only where none was connected when it was
    forked, which gRPC does not survive: fork before the first call, or start processes with the method "spawn".

    Args:
        half: the edge's half of the network, such as `facemix_ops.edge.EdgeModel`: `bundle`, what it needs to be told
            of, and `mix(images, wire_dtype=...)` for whole groups, which returns a request with `payload`, `scales`,
            `classify(reply)` and `close()`; see `facemix_ops.edge.request.Request`. Threads use it.
        server: "host:port", or "[IPv6]:port".
        decoys: public images uint8 [D, H, W, C] of the same kind as those to classify, to fill a batch that does not
            divide into groups; at least one less than a group has. Default: the bundle's; where it has none, such a
            batch is refused.
        wire_dtype: what to send: "float32", "float16", "bfloat16" or "int8"; default: the only one that the half can
            send, if it names one so; else the bundle's, or what the server takes where it does not take that.
        security: see there; default: TLS, and plain text to this machine itself.
        timeout: seconds that a call may take, all attempts included.
        attempts: how often a request may be sent.
        message_bytes: size of a message; a row that is larger is a message of its own.
        max_messages: how many messages may be under way at once. Requests are mixed ahead of that until there are as
            many again.
        request_groups: groups in a request at most.

    Raises:
        TypeError, ValueError: naming argument, rule and what came; RuntimeError in a child of a process that was
            connected when it was forked.
    """

    def __init__(
        self,
        half: Any,
        server: str,
        *,
        decoys: NDArray[np.uint8] | None = None,
        wire_dtype: str | None = None,
        security: Security | None = None,
        timeout: float = 30.0,
        attempts: int = 5,
        message_bytes: int = 1_500_000,
        max_messages: int = 32,
        request_groups: int = 8,
    ) -> None:
        check_process()
        check_half("Client", half)
        for name, value in (
            ("attempts", attempts),
            ("message_bytes", message_bytes),
            ("max_messages", max_messages),
            ("request_groups", request_groups),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Client: {name} must be an integer of at least 1, got {value!r}")
        if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise ValueError(f"Client: timeout must be a positive number of seconds, got {timeout!r}")
        if wire_dtype is not None and wire_dtype not in DATATYPE_OF:
            raise ValueError(f"Client: wire_dtype must be one of {', '.join(DATATYPE_OF)}, got {wire_dtype!r}")
        if security is not None and not isinstance(security, Security):
            raise TypeError(f"Client: security must be a facemix.edge.Security, got {type(security).__name__}")
        self._half, self._address = half, Address.parse(server)
        self._wire_dtype = getattr(half, "wire_dtype", None) if wire_dtype is None else wire_dtype
        self._security = Security() if security is None else security
        self._security.credentials(self._address)  # refuses now what it would refuse later
        self._decoys = Decoys(
            getattr(half.bundle, "decoys", None) if decoys is None else decoys, half.bundle.image_shape
        )
        self._timeout, self._request_groups = timeout, request_groups
        rows = request_groups * half.bundle.group_size * getattr(half, "rows_per_image", 1)
        self._reply_bytes = reply_bytes(half.bundle.outputs_shape, rows)
        self._sender = Sender(half, attempts, message_bytes, max_messages)
        self._connection: Connection | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed, self._process = False, os.getpid()

    async def classify(self, images: NDArray[np.uint8]) -> Answer:
        """Classify `images`, uint8 [N, H, W, C], N >= 1.

        Raises:
            TypeError, ValueError: if `images` is not such an array, or does not fill whole groups and there are not
                enough decoys; RuntimeError after `close`.
            CloudError: see there; CloudTimeout when the deadline passes.
        """
        self.check_open()
        check_images("classify", "images", images, self._half.bundle.image_shape)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._started(self._classify(images))
        except TimeoutError:
            pass  # what is raised below must not lead to this one, see `all_of`
        except CloudTimeout:
            await self._retire_connection()
            raise
        except asyncio.CancelledError:
            self._raise_if_closed()
            raise
        await self._retire_connection()  # it may have died without a word
        raise CloudTimeout(f"Client: no answer from {self._address} within {self._timeout:g} s")

    def stream(
        self, images: Iterable[NDArray[np.uint8]] | AsyncIterable[NDArray[np.uint8]], *, max_wait: float = 0.1
    ) -> AsyncGenerator[Prediction, None]:
        """Classify images as they come, and yield their predictions in their order.

        Images wait for a whole group, but no longer than `max_wait` seconds where there are decoys to fill it. At most
        as many images as two requests hold are read and not yet yielded. A plain iterable is read in a thread
        of its own. An image that comes again, to the byte, has the prediction that it had, among the last 10 000.

        Args:
            images: iterable, plain or asynchronous, of uint8 [H, W, C].

        Raises:
            As `classify`, and what `images` raises.
        """
        self.check_open()
        if not isinstance(max_wait, int | float) or not 0 <= max_wait < float("inf"):
            raise ValueError(f"stream: max_wait must be a number of seconds from 0, got {max_wait!r}")
        bundle = self._half.bundle
        wait = max_wait if len(self._decoys) >= bundle.group_size - 1 else None
        return self._stream(predictions(self._started, self.classify, images, bundle, self._request_groups, wait))

    def check_open(self) -> None:
        """Raise RuntimeError after `close`, and in a child process."""
        if self._closed:
            raise RuntimeError("Client: must be open, got a closed one")
        if os.getpid() != self._process:
            raise RuntimeError("Client: must be used in the process that made it, got a fork of that")

    async def close(self) -> None:
        """End calls under way and close the connection. Calls after that raise RuntimeError."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._retire_connection()
        await self._sender.close()

    async def __aenter__(self) -> AsyncClient:
        self.check_open()
        return self

    async def __aexit__(self, *unused: object) -> None:
        await self.close()

    def _started(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """A task that `close` cancels."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _raise_if_closed(self) -> None:
        """Tell those whom `close` interrupted why; who was cancelled by somebody else need not know."""
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self.check_open()

    async def _stream(self, source: AsyncGenerator[Prediction, None]) -> AsyncGenerator[Prediction, None]:
        async with aclosing(source):
            try:
                async for prediction in source:
                    yield prediction
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise

    async def _retire_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.retire()

    async def _classify(self, images: NDArray[np.uint8]) -> Answer:
        deadline, meter = time.monotonic() + self._timeout, Meter()
        if self._connection is None:
            self._connection = Connection(
                self._address, self._security, self._half.bundle, self._wire_dtype, self._reply_bytes
            )
        async with self._connection.used() as connection:
            group_size = self._half.bundle.group_size
            (batches, stand_ins), _ = await self._sender.run(
                lambda: compose(images, self._decoys, group_size, self._request_groups)
            )
            results = await all_of(
                self._sender.send(connection, partial(batch.gather, images, self._decoys), len(batch), deadline, meter)
                for batch in batches
            )
        count, rows = len(images), [row for batch in batches for row in batch.rows]
        # From where the requests' results lie to the caller's images.
        places = np.empty(count, np.int64)
        places[rows] = np.arange(len(rows))
        places = places[stand_ins]
        scores = np.concatenate([r.scores[: len(b.rows)] for r, b in zip(results, batches, strict=True)])[places]
        result = result_of(scores, self._half.bundle)
        return Answer(**result._asdict(), cost=meter.cost(count, len(batches)))
