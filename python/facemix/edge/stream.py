"""Images as they come, predictions as they go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Container, Coroutine, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge.grouping import digest
from facemix_ops.edge.preprocess import check_images

from .answer import Answer, Prediction
from .frames import frames
from .grouping import Remembered

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
    """Yield the predictions of what `source` yields, in its order; see `AsyncClient.stream`. An image that comes again
    has the prediction that it had.

    Args:
        start: makes a task of a coroutine.
        max_wait: seconds from a batch's first image until it goes, full or not; None: it waits for whole groups.
    """
    most = request_groups * bundle.group_size
    slots, arrived, places = asyncio.Semaphore(REQUESTS_AHEAD * most), asyncio.Queue[Any](), asyncio.Queue[Any]()
    calls: set[asyncio.Task[Answer]] = set()

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
        asked = Remembered[tuple[asyncio.Task[Answer], int]]()  # whose answer has an image's prediction, and where
        try:
            more = True
            while more:
                names, new, more = await _batch(arrived, asked, bundle.group_size, most, max_wait)
                if new:
                    calls.add(call := start(classify(np.stack(list(new.values())))))
                    asked.update((name, (call, n)) for n, name in enumerate(new))
                for name in names:
                    places.put_nowait(asked[name])
                asked.forget()
        finally:
            places.put_nowait(END)

    tasks = [start(read()), start(ask())]
    try:
        while (place := await places.get()) is not END:
            call, n = place
            answer = await call
            calls.discard(call)
            slots.release()
            yield answer[n]
        await asyncio.gather(*tasks)  # raises what `source` raised
    finally:
        running = [*tasks, *calls]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _batch(
    arrived: asyncio.Queue[Any], asked: Container[bytes], group_size: int, most: int, max_wait: float | None
) -> tuple[list[bytes], dict[bytes, NDArray[np.uint8]], bool]:
    """The digests of the next images, those of them, at most `most`, that were not `asked` for yet, for the next
    request, and whether more may come.
    """
    names: list[bytes] = []
    new: dict[bytes, NDArray[np.uint8]] = {}
    if (image := await arrived.get()) is END:
        return names, new, False
    waited = asyncio.timeout(max_wait)
    try:
        async with waited:
            while image is not END:
                names.append(name := digest(image))
                if name not in asked:
                    new[name] = image
                # The next group need not wait for those that are whole, unless it is here; no more can come where all
                # that may be read wait here.
                if (
                    len(new) == most
                    or len(names) == REQUESTS_AHEAD * most
                    or (len(new) % group_size == 0 and arrived.qsize() < group_size)
                ):
                    return names, new, True
                image = await arrived.get()
    except TimeoutError:
        if not waited.expired():
            raise
        return names, new, True
    return names, new, False
