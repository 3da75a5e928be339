"""Images as they come."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from edge_halves import DECOYS, GROUP, IMAGE, WatchedHalf, check, expected, images
from facemix.edge import AsyncClient, Client
from fake_cloud import Running
from numpy.testing import assert_allclose


def test_streams(client: Client, half: WatchedHalf) -> None:
    pictures = images(70)
    scores = np.array([prediction.scores for prediction in client.stream(iter(pictures))])
    want = expected(pictures)
    assert_allclose(scores, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert half.wiped
    assert list(client.stream([])) == []


def test_an_asynchronous_stream(half: WatchedHalf, server: Running) -> None:
    pictures = images(11)

    async def camera() -> AsyncIterator[np.ndarray]:
        buffer = np.empty(IMAGE, np.uint8)  # as cameras do, one for all
        for picture in pictures:
            buffer[:] = picture
            yield buffer
            await asyncio.sleep(0)

    async def run() -> list[int]:
        async with AsyncClient(half, server.address, decoys=DECOYS) as client:
            return [prediction.label async for prediction in client.stream(camera())]

    assert asyncio.run(run()) == expected(pictures).argmax(1).tolist()


def test_a_stream_does_not_wait_for_a_whole_group(client: Client) -> None:
    """The camera delivers one image more only when the first has its prediction."""
    done, pictures = threading.Event(), images(3)

    def camera() -> Iterator[np.ndarray]:
        yield pictures[0]
        assert done.wait(30)
        yield from pictures[1:]

    stream = client.stream(camera(), max_wait=0.01)
    labels = [next(stream).label]
    done.set()
    labels += [prediction.label for prediction in stream]
    assert labels == expected(pictures).argmax(1).tolist()


def test_without_decoys_images_wait_for_a_whole_group(half: WatchedHalf, server: Running) -> None:
    pictures = images(GROUP)

    def camera() -> Iterator[np.ndarray]:
        for picture in pictures:
            time.sleep(0.02)
            yield picture

    with Client(half, server.address) as client:
        labels = [prediction.label for prediction in client.stream(camera(), max_wait=0.001)]
    assert labels == expected(pictures).argmax(1).tolist()


def test_a_whole_group_waits_for_nobody(client: Client) -> None:
    done, pictures = threading.Event(), images(GROUP + 1)

    def camera() -> Iterator[np.ndarray]:
        yield from pictures[:GROUP]
        assert done.wait(30)
        yield pictures[GROUP]

    stream = client.stream(camera(), max_wait=3600)
    labels = [next(stream).label for _ in range(GROUP)]
    done.set()
    labels += [prediction.label for prediction in stream]
    assert labels == expected(pictures).argmax(1).tolist()


def test_a_stream_that_the_garbage_collector_ends_in_the_clients_thread(client: Client, half: WatchedHalf) -> None:
    """Nobody may wait there."""

    class Holder:
        pass

    holder: Any = Holder()
    holder.itself, holder.stream = holder, client.stream(iter(images(70)))
    next(holder.stream)

    async def collected() -> AsyncIterator[np.ndarray]:
        nonlocal holder
        del holder
        gc.collect()
        yield images(1)[0]

    assert len(list(client.stream(collected()))) == 1


def test_images_that_repeat_do_not_fill_a_group(half: WatchedHalf, server: Running) -> None:
    """Where there are no decoys, the stream waits for as many different ones."""
    pictures = images(GROUP)
    order = [0, 1, *[0] * (GROUP - 1), *range(2, GROUP)]
    with Client(half, server.address, request_groups=1) as client:
        labels = [prediction.label for prediction in client.stream(pictures[order])]
    assert labels == expected(pictures[order]).argmax(1).tolist()


@pytest.mark.parametrize("repeats", [2 * GROUP - 1, 100])
def test_a_stream_of_one_image(client: Client, repeats: int) -> None:
    """It does not wait for another when nothing more can be read."""
    labels = [prediction.label for prediction in client.stream([images(1)[0]] * repeats, max_wait=3600)]
    assert labels == [expected(images(1)).argmax()] * repeats


def test_a_stream_reads_ahead_within_bounds(half: WatchedHalf, server: Running) -> None:
    read = 0

    def camera() -> Iterator[np.ndarray]:
        nonlocal read
        for picture in images(100):
            read += 1
            yield picture

    with Client(half, server.address, decoys=DECOYS, request_groups=2) as client:
        stream = client.stream(camera())
        for yielded in range(1, 30):
            next(stream)
            assert read <= yielded + 2 * 2 * GROUP
        stream.close()
        seen = read
        check(client.classify(images(4)), images(4))
    assert read <= seen + 1
    assert half.wiped  # now that the client has closed: a thread that mixed when the stream ended wipes its key itself


def test_what_a_stream_raises(client: Client) -> None:
    def camera() -> Iterator[np.ndarray]:
        yield from images(5)
        raise OSError("the camera is gone")

    stream = client.stream(camera())
    assert len([next(stream) for _ in range(5)]) == 5
    with pytest.raises(OSError, match="the camera is gone"):
        next(stream)
    for bad, error in ((["picture"], TypeError), ([images(1)], ValueError), ([images(1, (2, 2, 3))[0]], ValueError)):
        with pytest.raises(error, match="classify: images must"):
            list(client.stream(bad))


@pytest.mark.parametrize("max_wait", [-1, float("inf"), float("nan"), None, "soon"])
def test_bad_waits(max_wait: object, client: Client) -> None:
    with pytest.raises(ValueError, match="stream: max_wait must be a number of seconds from 0, got"):
        client.stream([], max_wait=max_wait)  # type: ignore[arg-type]


def test_a_stream_whose_client_is_closed(half: WatchedHalf, server: Running) -> None:
    client = Client(half, server.address, decoys=DECOYS)
    stream = client.stream(iter(images(40)))
    next(stream)
    client.close()
    with pytest.raises(RuntimeError, match="must be open"):
        list(stream)
    assert half.wiped


def test_still_pictures_do_not_fill_a_group(client: Client, half: WatchedHalf) -> None:
    """The same image over and over: its group is filled with decoys, once."""
    labels = [prediction.label for prediction in client.stream([images(1)[0]] * 33)]
    assert labels == expected(images(1)).argmax(1).tolist() * 33
    assert len(half.batches) == 1
    assert len(np.unique(half.batches[0], axis=0)) == GROUP


def test_a_stream_mixes_an_image_once(client: Client, half: WatchedHalf) -> None:
    """In requests of its own each time, it would come out (test_regrouped.py)."""
    pictures = images(9)
    seen = pictures[np.random.default_rng(5).integers(0, 9, 300)]  # a camera that nods
    labels = [prediction.label for prediction in client.stream(seen, max_wait=0.001)]
    assert labels == expected(seen).argmax(1).tolist()
    sent = np.concatenate(half.batches)
    assert [np.count_nonzero((sent == picture).all((1, 2, 3))) for picture in pictures] == [1] * 9


def test_the_same_image_again_does_not_make_a_group_whole(half: WatchedHalf, server: Running) -> None:
    pictures = images(GROUP)[[*[0] * GROUP, *range(1, GROUP)]]  # a camera that saw nothing new for a while
    with Client(half, server.address) as client:  # and without decoys
        labels = [prediction.label for prediction in client.stream(pictures)]
    assert labels == expected(pictures).argmax(1).tolist()
