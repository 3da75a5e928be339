"""How images become requests, and requests messages."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from edge_halves import DECOYS, IMAGE, ROW, WatchedHalf, check, images
from facemix.edge import Answer, BlindedHalf, Client
from fake_cloud import FakeCloud, Running


def test_the_same_image_is_sent_once(half: WatchedHalf, client: Client) -> None:
    pictures = images(5)[[0, 1, 1, 2, 0, 3, 4, 4, 0, 0, 2]]
    answer = client.classify(pictures)
    check(answer, pictures)
    (batch,) = half.batches
    assert len(np.unique(batch, axis=0)) == len(batch) == 8
    assert (answer.cost.images, answer.cost.rows) == (11, 8)


def test_decoys_differ_from_the_images_and_from_each_other(half: WatchedHalf, server: Running) -> None:
    pictures = images(5)
    decoys = np.concatenate((pictures[:4], DECOYS[:3], DECOYS[:3]))
    with Client(half, server.address, decoys=decoys) as client:
        check(client.classify(pictures), pictures)
        with pytest.raises(ValueError, match=r"decoys must have at least 3 images that differ .*, got 2: pass decoys="):
            client.classify(np.concatenate((pictures[:4], DECOYS[:1])))
    assert len(np.unique(half.batches[0], axis=0)) == 8
    assert half.wiped


def test_without_decoys_groups_must_be_whole(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address) as client:
        check(client.classify(images(8)), images(8))
        with pytest.raises(ValueError, match=r"decoys must have at least 1 .*, got 0: pass decoys="):
            client.classify(images(7))


def test_requests_are_whole_groups_of_bounded_size_with_the_same_images(half: WatchedHalf, server: Running) -> None:
    pictures = images(22)
    with Client(half, server.address, decoys=DECOYS, request_groups=2) as client:
        answers = [client.classify(pictures) for _ in range(2)]
    assert sorted(len(batch) for batch in half.batches) == [8] * 6
    assert [answer.cost.requests for answer in answers] == [3, 3]
    together = [{frozenset(picture.tobytes() for picture in b) for b in half.batches[n : n + 3]} for n in (0, 3)]
    assert together[0] == together[1]
    for answer in answers:
        check(answer, pictures)


def test_messages_are_cut_from_the_shuffled_rows(half: WatchedHalf, server: Running) -> None:
    pictures = images(32)
    with Client(half, server.address, message_bytes=3 * ROW + 5) as client:
        answer = client.classify(pictures)
    check(answer, pictures)
    rows = [request.inputs[0].shape[0] for request in server.cloud.requests]
    assert (sum(rows), max(rows), min(rows)) == (32, 3, 2)
    assert answer.cost.messages == len(rows) == 11


def test_a_row_larger_than_a_message(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address, message_bytes=1) as client:
        check(client.classify(images(8)), images(8))
    assert [request.inputs[0].shape[0] for request in server.cloud.requests] == [1] * 8


def test_messages_under_way_are_bounded_for_all_calls_together(half: WatchedHalf, server: Running) -> None:
    async def slowly(cloud: FakeCloud, *_: object) -> None:
        await asyncio.sleep(0.01)

    server.cloud.behave = slowly
    with Client(half, server.address, message_bytes=ROW, max_messages=3, request_groups=2) as client:
        answers: dict[int, Answer] = {}

        def call(seed: int) -> None:
            answers[seed] = client.classify(images(16, seed=seed))

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.cloud.most == 3
    for seed, answer in answers.items():
        check(answer, images(16, seed=seed))


@pytest.mark.parametrize(
    ("pictures", "error", "text"),
    [
        ([1, 2], TypeError, "images must be a NumPy array, got list"),
        (np.zeros((4, *IMAGE)), TypeError, "images must have dtype uint8, got float64"),
        (np.zeros(IMAGE, np.uint8), ValueError, r"images must have shape \[N, 12, 10, 3\] .*, got \[12, 10, 3\]"),
        (np.zeros((0, *IMAGE), np.uint8), ValueError, r"N >= 1, got \[0, 12, 10, 3\]"),
        (np.zeros((4, 10, 12, 3), np.uint8), ValueError, r"got \[4, 10, 12, 3\]"),
    ],
)
def test_bad_images(pictures: object, error: type[Exception], text: str, client: Client) -> None:
    with pytest.raises(error, match=text):
        client.classify(pictures)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"timeout": 0}, "timeout must be a positive number of seconds, got 0"),
        ({"timeout": float("inf")}, "timeout must be"),
        ({"attempts": 0}, "attempts must be an integer of at least 1, got 0"),
        ({"message_bytes": 1.5}, "message_bytes must be an integer"),
        ({"max_messages": True}, "max_messages must be an integer"),
        ({"request_groups": -1}, "request_groups must be an integer"),
        ({"wire_dtype": "float64"}, "wire_dtype must be one of float32, float16, bfloat16, int8, got 'float64'"),
        ({"decoys": images(3, (9, 9, 3))}, "decoys must have shape"),
    ],
)
def test_bad_options(options: dict[str, object], text: str, half: WatchedHalf) -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match=text):
        Client(half, "127.0.0.1:1", **options)  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_security_is_not_a_path(half: WatchedHalf) -> None:
    path: Any = "ca.pem"
    with pytest.raises(TypeError, match=r"Client: security must be a facemix\.edge\.Security, got str"):
        Client(half, "127.0.0.1:1", security=path)


@pytest.mark.parametrize(("value", "kind"), [("edge.safetensors", "str"), (None, "NoneType"), ({"mix": 1}, "dict")])
def test_a_half_that_is_none(value: object, kind: str) -> None:
    text = f"half must be an edge half, such as facemix.edge.load_half.path. returns, got {kind}"
    with pytest.raises(TypeError, match=f"^Client: {text}"):
        Client(value, "127.0.0.1:1")
    with pytest.raises(TypeError, match=f"^BlindedHalf: {text}"):
        BlindedHalf(value, None)
