"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Coroutine, Generator, Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .answer import Answer, Prediction
from .async_client import AsyncClient
from .security import Security

__all__ = ["Client"]

T = TypeVar("T")
END: Any = object()
CLEAN_UP_SECONDS = 2.0


class Client:
    """`AsyncClient` for programs without an event loop: it has one in a thread. The arguments are the same.

    Any number of threads may use a client at once. Use it as a context manager, or `close` it.
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
        self._client = AsyncClient(
            half,
            server,
            decoys=decoys,
            wire_dtype=wire_dtype,
            security=security,
            timeout=timeout,
            attempts=attempts,
            message_bytes=message_bytes,
            max_messages=max_messages,
            request_groups=request_groups,
        )
        self._closing = threading.Lock()
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a client that nobody closed does not keep the program from ending.
        self._thread = threading.Thread(target=self._loop.run_forever, name="facemix-client", daemon=True)
        self._thread.start()

    def classify(self, images: NDArray[np.uint8]) -> Answer:
        """See `AsyncClient.classify`."""
        return self._run(self._client.classify(images))

    def stream(
        self, images: Iterable[NDArray[np.uint8]] | AsyncIterable[NDArray[np.uint8]], *, max_wait: float = 0.1
    ) -> Generator[Prediction, None, None]:
        """See `AsyncClient.stream`."""
        predictions = self._run(self._start_stream(images, max_wait))
        return self._stream(predictions)

    def close(self) -> None:
        """End calls under way and close the connection. Calls after that raise RuntimeError."""
        with self._closing:
            if not self._thread.is_alive():
                return
            self._run(self._client.close())
            # In its own thread: the caller's may have a loop that runs, as in a notebook.
            asyncio.run_coroutine_threadsafe(self._loop.shutdown_asyncgens(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Client:
        self._client.check_open()
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    async def _start_stream(self, images: Any, max_wait: float) -> AsyncGenerator[Prediction, None]:
        return self._client.stream(images, max_wait=max_wait)

    def _stream(self, predictions: AsyncGenerator[Prediction, None]) -> Generator[Prediction, None, None]:
        try:
            while (prediction := self._run(_next(predictions))) is not END:
                yield prediction
        finally:
            # When the program ends, the thread does so first, and there is nobody left to wait for. And in the loop's
            # own thread, where the garbage collector may drop this, nobody may wait: the loop closes what it began.
            if not (self._loop.is_closed() or sys.is_finalizing() or threading.current_thread() is self._thread):
                self._run(predictions.aclose())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what `coroutine` returns in the thread. Whatever interrupts us here cancels it, and waits until it has
        cleaned up.
        """
        try:
            self._client.check_open()
        except RuntimeError:
            coroutine.close()
            raise
        ended = threading.Event()

        async def run() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(CLEAN_UP_SECONDS)
            raise
        finally:
            del future  # see `all_of`


async def _next(predictions: AsyncGenerator[Prediction, None]) -> Any:
    """The next prediction, or END. Asked for in the loop, so that the loop knows of the generator."""
    return await anext(predictions, END)
