"""One network's way through the cloud and back, in one wire dtype, told event by event."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemix.demo.recorder import Mixed, Recorder
from facemix.edge import Answer, Client, CloudError, CloudUnreachable

__all__ = ["Trip"]

TIMEOUT_SECONDS = 8.0  # somebody is looking at the page
ATTEMPTS = 3
QUIET_SECONDS = 0.3  # for the cloud, while nothing of ours runs beside and costs time that the page would show
POLL_SECONDS = 0.05
RECONNECT_SECONDS = 1.5  # gRPC waits up to a second before it tries to reach a server that was gone


class Trip:
    """Sends images through the cloud, one call at a time; others wait.

    Args:
        half: the edge's half of the network.
        server: "host:port".
        decoys: public images uint8 [D, H, W, C].
        wire_dtype: what to send.
        request_groups: groups in a request at most.
    """

    def __init__(
        self, half: Any, server: str, *, decoys: NDArray[np.uint8], wire_dtype: str, request_groups: int
    ) -> None:
        self._recorder, self._decoys = Recorder(half), decoys
        self._client = Client(
            self._recorder,
            server,
            decoys=decoys,
            wire_dtype=wire_dtype,
            timeout=TIMEOUT_SECONDS,
            attempts=ATTEMPTS,
            request_groups=request_groups,
        )
        self._lock, self._warm = threading.Lock(), False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="facemix-page")

    def send(self, images: NDArray[np.uint8]) -> Iterator[Mixed | Answer | CloudError]:
        """Yield what is mixed for `images` [N, H, W, C], and then the answer or the error."""
        with self._lock:
            events: queue.SimpleQueue[Mixed] = queue.SimpleQueue()
            call = self._thread.submit(self._classify, images, events)
            try:
                wait([call], QUIET_SECONDS)
                while not call.done() or not events.empty():
                    try:
                        mixed = events.get(timeout=POLL_SECONDS)
                    except queue.Empty:
                        continue
                    yield mixed
                yield _result(call)
            finally:
                wait([call])  # also where nobody looks any more: the next call records its own mixtures only

    def close(self) -> None:
        """Close the connection; a call under way fails."""
        self._client.close()
        self._thread.shutdown()

    def __enter__(self) -> Trip:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _classify(self, images: NDArray[np.uint8], events: queue.SimpleQueue[Mixed]) -> Answer:
        if not self._warm:
            self._warm_up()
        self._warm = False
        self._recorder.listen = events.put
        try:
            answer = self._client.classify(images)
        finally:
            self._recorder.listen = None
        self._warm = True
        return answer

    def _warm_up(self) -> None:
        """The first request pays for the connection and for allocations."""
        deadline = time.monotonic() + RECONNECT_SECONDS
        while True:
            try:
                self._client.classify(self._decoys[: self._recorder.bundle.group_size])
                return
            except CloudUnreachable:
                if time.monotonic() > deadline:
                    raise


def _result(call: Future[Answer]) -> Answer | CloudError:
    error = call.exception()
    if isinstance(error, CloudError):
        return error
    return call.result()
