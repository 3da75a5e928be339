"""Clients under watch: what they may answer, and what they must never do, whatever happens on the way."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import numpy as np
from exact import TOLERANCE, pictures, truth
from facemix.edge import AsyncClient, CloudError
from frames import Recorder
from numpy.typing import NDArray
from torch import nn

from facemix_ops.edge import EdgeModel

__all__ = ["Watch"]

SLACK = 5.0  # seconds that a busy machine may add to a deadline before we say that a call hangs
PICTURES, DECOYS = 64, 8


class Watch:
    """Makes clients whose half remembers every key and every mixture, and judges what they say.

    Args:
        edge: the edge's file.
        network: what it is the edge of, in one piece.

    Attributes:
        on_the_wire: give it to a proxy as `on_up`.
        half: for clients.
        retries: attempts that failed before an answer came.
    """

    def __init__(self, edge: Any, network: nn.Module) -> None:
        self._half = EdgeModel.load(edge, threads=1)
        self.bundle, self.half = self._half.bundle, self
        self.on_the_wire, self.retries = Recorder(), 0
        self._images = pictures(PICTURES)
        self._scores = truth(network, self._images)
        self._tolerance = TOLERANCE * np.abs(self._scores).max()
        self._calls = 0
        self._keys: list[str] = []
        self._rows: list[str] = []
        self._requests: list[Any] = []
        different = np.abs(self._scores[:, None] - self._scores).max(2) + np.eye(PICTURES) * 1e9
        assert different.min() > 4 * self._tolerance, "an answer for another image must not pass for the right one"

    def mix(self, images: NDArray[np.uint8], **options: Any) -> Any:
        """As the half does."""
        request = self._half.mix(images, **options)
        self._keys.append(hashlib.sha256(request._key.coeffs.tobytes()).hexdigest())
        self._rows += [hashlib.sha256(row.tobytes()).hexdigest() for row in request.payload]
        self._requests.append(request)
        return request

    def client(self, address: str, **options: Any) -> AsyncClient:
        """A client of this half, with decoys."""
        return AsyncClient(self, address, decoys=pictures(DECOYS, seed=1), **options)

    async def ask(self, client: AsyncClient, rows: list[int], timeout: float) -> CloudError | None:
        """Classify pictures and check the answer; return the error where there is none. `timeout` is the client's."""
        start = time.monotonic()
        self._calls += 1
        try:
            answer = await client.classify(self._images[rows])
        except CloudError as error:
            return error
        finally:
            assert time.monotonic() - start < timeout + SLACK, "a call must end by its deadline"
        self.retries += answer.cost.attempts - answer.cost.requests
        np.testing.assert_allclose(answer.scores, self._scores[rows], rtol=0, atol=self._tolerance)
        return None

    async def crowd(self, address: str, clients: int, calls: int, timeout: float, **options: Any) -> list[CloudError]:
        """So many clients at once, each with so many calls one after the other; returns their errors."""

        async def one(number: int) -> list[CloudError | None]:
            draw = np.random.default_rng(number)
            async with self.client(address, timeout=timeout, **options) as client:
                return [
                    await self.ask(client, list(draw.choice(PICTURES, draw.integers(1, 17), replace=False)), timeout)
                    for _ in range(calls)
                ]

        outcomes = await asyncio.gather(*map(one, range(clients)))
        return [error for outcome in outcomes for error in outcome if error is not None]

    def assert_nothing_reused(self) -> None:
        """No key served twice and is still there, nothing was mixed twice in a call, whose images make one request,
        and what was sent again is what had been sent.
        """
        assert 0 < len(set(self._keys)) == len(self._keys) <= self._calls
        assert len(set(self._rows)) == len(self._rows)
        assert all(request.closed for request in self._requests)
        self.on_the_wire.assert_alike_or_different()
