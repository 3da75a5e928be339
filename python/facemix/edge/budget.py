"""Back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Budget"]


class Budget:
    """Lets work in, in the order in which it comes, while less than `limit` of it is inside. The last may go beyond the
    limit, so that work of any size gets in.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._inside = limit, 0
        self._door, self._left = asyncio.Lock(), asyncio.Event()

    @asynccontextmanager
    async def inside(self, amount: int) -> AsyncIterator[None]:
        """Wait to be let in; the amount is given back when the block ends."""
        async with self._door:  # the others wait behind the first
            while self._inside >= self._limit:
                self._left.clear()
                await self._left.wait()
            self._inside += amount
        try:
            yield
        finally:
            self._inside -= amount
            self._left.set()
