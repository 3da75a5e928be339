"""Images as they come, predictions as they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge.preprocess import check_images

from .answer import Answer, Prediction
from .frames import frames
from .grouping import digest

__all__ = ["predictions"]

END = object()
REQUESTS_AHEAD = 2  # images of so many are read and not yet yielded


async def predictions(
    start: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    classify: Callable[[NDArray[np.uint8]], Coroutine[Any, Any, Answer]],
    source: Iterable[Any] | AsyncIterable[Any],
    bundle: Any,
    request_groups: int,
    max_wait: float | None,
) -> AsyncGenerator[Prediction, None]:
    """Yield the predictions of what `source` yields, in its order; see `AsyncClient.stream`.

    Args:
        start: makes a task of a coroutine.
        max_wait: seconds from a batch's first image until it goes, full or not; None: it waits for whole groups.
    """
    most = request_groups * bundle.group_size
    slots, arrived, calls = asyncio.Semaphore(REQUESTS_AHEAD * most), asyncio.Queue[Any](), asyncio.Queue[Any]()

    async def read() -> None:
        images = frames(source)
        try:
            await slots.acquire()
            async for image in images:
                batch = image[None] if isinstance(image, np.ndarray) else image
                check_images("classify", "images", batch, bundle.image_shape)
                arrived.put_nowait(image.copy())  # a camera may use its buffer again
                await slots.acquire()
        finally:
            arrived.put_nowait(END)
            await images.aclose()

    async def ask() -> None:
        try:
            more = True
            while more:
                batch, more = await _batch(arrived, bundle.group_size, most, max_wait)
                if batch:
                    calls.put_nowait(start(classify(np.stack(batch))))
        finally:
            calls.put_nowait(END)

    tasks = [start(read()), start(ask())]
    try:
        while (call := await calls.get()) is not END:
            tasks.append(call)
            answer = await call
            tasks.remove(call)
            for n in range(len(answer)):
                slots.release()
                yield answer[n]
        await asyncio.gather(*tasks)  # raises what `source` raised
    finally:
        while not calls.empty():
            tasks.append(calls.get_nowait())
        running = [task for task in tasks if task is not END]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _batch(
    arrived: asyncio.Queue[Any], group_size: int, most: int, max_wait: float | None
) -> tuple[list[NDArray[np.uint8]], bool]:
    """The images of the next request, at most `most`, and whether more may come."""
    if (image := await arrived.get()) is END:
        return [], False
    batch, different, waited = [], set(), asyncio.timeout(max_wait)
    try:
        async with waited:
            while image is not END:
                batch.append(image)
                different.add(digest(image))
                # The next group need not wait for those that are whole, unless it is here.
                if len(batch) == most or (len(different) % group_size == 0 and arrived.qsize() < group_size):
                    return batch, True
                image = await arrived.get()
    except TimeoutError:
        if not waited.expired():
            raise
        return batch, True
    return batch, False
