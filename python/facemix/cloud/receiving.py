"""Slots for messages that are being received and unpacked."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

__all__ = ["Receiving"]


class Receiving:
    """So many messages are received at one time; further calls wait.

    Args:
        slots: how many.
        longest: seconds that a message may take.
        hurried: seconds that it may take where calls wait: each of those hurries the oldest message. Else senders that
            hold their messages back would keep everybody out.
    """

    def __init__(self, slots: int, longest: float, hurried: float) -> None:
        self._slots, self._longest, self._hurried = asyncio.Semaphore(slots), longest, hurried
        self._waiting = 0
        self._unhurried: OrderedDict[asyncio.Timeout, float] = OrderedDict()  # oldest first, and since when

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Callable[[], None]]:
        """Wait for a slot, and hold it while the block runs; yields what to call when the message is there.

        Raises:
            TimeoutError: if it is not there in time.
        """
        loop = asyncio.get_running_loop()
        if self._slots.locked() and self._unhurried:
            oldest, since = self._unhurried.popitem(last=False)
            if not oldest.expired():  # its time is up, and its block has not heard of that yet
                oldest.reschedule(max(since + self._hurried, loop.time()))
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(self._hurried if self._waiting else self._longest) as patience:
                if not self._waiting:
                    self._unhurried[patience] = loop.time()

                def received() -> None:
                    self._unhurried.pop(patience, None)
                    patience.reschedule(None)

                try:
                    yield received
                finally:
                    self._unhurried.pop(patience, None)
        finally:
            self._slots.release()
