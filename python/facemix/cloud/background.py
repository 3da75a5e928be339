"""Work beside the event loop that may take long, and for which the process does not stay."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["in_background", "leave"]

NAME = "facemix-background"

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
        except BaseException as error:  # whoever waits would wait for ever
            future.set_exception(error)

    threading.Thread(target=work, name=NAME, daemon=True).start()
    return await asyncio.wrap_future(future)


def leave() -> None:
    """End the process with status 0, if such work is still going on. Python itself would, in ending, unwind a thread in
    the middle of PyTorch's C++, and abort.
    """
    if any(thread.name == NAME for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
