"""Work beside the event loop that may take long, and for which the process does not stay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_background"]

T = TypeVar("T")


async def in_background(function: Callable[[], T]) -> T:
    """What `function` returns, or raises, in a thread of its own. A process ends only after the threads of
    `asyncio.to_thread`.
    """
    future = Future[T]()
    future.set_running_or_notify_cancel()  # who waits may be cancelled, the thread not

    def work() -> None:
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, name="facemix-background", daemon=True).start()
    return await asyncio.wrap_future(future)
