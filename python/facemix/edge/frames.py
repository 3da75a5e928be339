"""Images from any iterable, one at a time, without blocking the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from typing import Any

__all__ = ["frames"]


async def frames(source: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """What `source` yields. A plain iterable, such as a camera, runs in a thread of its own, which asks for an image
    when one is wanted, and not before.
    """
    if isinstance(source, AsyncIterable):
        async for image in source:
            yield image
        return
    loop, wishes = asyncio.get_running_loop(), queue.SimpleQueue[asyncio.Future[tuple[Any, bool]] | None]()
    # A daemon: a camera that delivers nothing more must not keep the program from ending.
    threading.Thread(target=_read, args=(source, wishes, loop), name="facemix-frames", daemon=True).start()
    try:
        while True:
            wishes.put(wish := loop.create_future())
            image, more = await wish
            if not more:
                return
            yield image
    finally:
        wishes.put(None)


def _read(source: Iterable[Any], wishes: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Fulfil wishes until there is a None."""
    iterator: Any = None
    while (wish := wishes.get()) is not None:
        try:
            iterator = iter(source) if iterator is None else iterator
            outcome, error = (next(iterator), True), None
        except StopIteration:
            outcome, error = (None, False), None
        except BaseException as raised:
            outcome, error = (None, False), raised
        try:
            loop.call_soon_threadsafe(_fulfil, wish, outcome, error)
        except RuntimeError:  # the loop was closed meanwhile
            break
    if hasattr(iterator, "close"):
        iterator.close()


def _fulfil(wish: asyncio.Future[tuple[Any, bool]], outcome: tuple[Any, bool], error: BaseException | None) -> None:
    if wish.cancelled():
        return
    if error is None:
        wish.set_result(outcome)
    else:
        wish.set_exception(error)
