"""The client against a linear cloud: right answers in the right order, and nothing secret sent or left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from edge_halves import CLASSES, GROUP, IMAGE, MIDDLE, WatchedHalf, expected, images
from facemix.edge import Answer, AsyncClient, Client, Cost
from facemix.wire.names import DATATYPES_PROPERTY
from fake_cloud import FakeCloud, Running, running
from numpy.testing import assert_allclose

DECOYS = images(9, seed=99)
ROW = 5 * 6 * 5 * 4  # bytes of float32 features


@pytest.fixture
def half() -> WatchedHalf:
    return WatchedHalf()


@pytest.fixture
def server(half: WatchedHalf) -> Iterator[Running]:
    with running(FakeCloud(half.bundle, MIDDLE)) as server:
        yield server


@pytest.fixture
def client(half: WatchedHalf, server: Running) -> Iterator[Client]:
    with Client(half, server.address, decoys=DECOYS) as client:
        yield client


def check(answer: Answer, pictures: np.ndarray, tolerance: float = 1e-4) -> None:
    want = expected(pictures)
    assert answer.scores.dtype == np.float32
    assert answer.labels.dtype == np.int64
    assert_allclose(answer.scores, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    np.testing.assert_array_equal(answer.labels, answer.scores.argmax(1))
    assert answer.names == [("ann", "ben", "cid", "dot")[label] for label in answer.labels]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 8, 9, 31, 64, 67])
def test_right_answers_in_the_callers_order(count: int, half: WatchedHalf, client: Client) -> None:
    pictures = images(count)
    answer = client.classify(pictures)
    check(answer, pictures)
    assert len(answer) == count
    assert answer[0].label == answer.labels[0]
    assert [prediction.name for prediction in answer] == answer.names
    assert half.wiped


@pytest.mark.parametrize("wire_dtype", ["float32", "float16", "bfloat16", "int8"])
def test_wire_dtypes(wire_dtype: str, half: WatchedHalf, server: Running) -> None:
    pictures = images(16)
    with Client(half, server.address, wire_dtype=wire_dtype) as client:
        answer = client.classify(pictures)
    # What the rounding of 1 value in 2^8, 2^11, and 127 steps leaves over 150 of them, mixed and un-mixed.
    check(answer, pictures, {"float32": 1e-4, "float16": 5e-3}.get(wire_dtype, 5e-2))
    (request,) = server.cloud.requests
    datatype = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}[wire_dtype]
    assert [tensor.datatype for tensor in request.inputs] == [datatype] + ["FP32"] * (wire_dtype == "int8")


def test_layouts_and_read_only_images(client: Client) -> None:
    pictures = images(8)
    check(client.classify(pictures[::-1]), pictures[::-1])
    turned = np.ascontiguousarray(pictures.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    turned.flags.writeable = False
    check(client.classify(turned), pictures)


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


def test_requests_are_whole_groups_of_bounded_size_in_random_company(half: WatchedHalf, server: Running) -> None:
    pictures = images(22)
    with Client(half, server.address, decoys=DECOYS, request_groups=2) as client:
        answers = [client.classify(pictures) for _ in range(2)]
    assert sorted(len(batch) for batch in half.batches) == [8] * 6
    assert [answer.cost.requests for answer in answers] == [3, 3]
    company = [{frozenset(picture.tobytes() for picture in b) for b in half.batches[n : n + 3]} for n in (0, 3)]
    assert company[0] != company[1]
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


def test_cost(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address, decoys=DECOYS, message_bytes=4 * ROW) as client:
        cost = client.classify(images(9)).cost
    requests = server.cloud.requests
    assert isinstance(cost, Cost)
    assert (cost.images, cost.rows, cost.requests, cost.attempts, cost.messages) == (9, 12, 1, 1, 3)
    assert cost.bytes_up == sum(request.ByteSize() for request in requests) > 12 * ROW
    assert cost.bytes_down == sum(server.cloud.answer(request).ByteSize() for request in requests)
    assert cost.cloud_seconds == 1e-6  # one batch, by the cloud's account
    assert min(cost.edge_seconds, cost.network_seconds) > 0


def test_nothing_but_mixtures_is_sent(half: WatchedHalf, client: Client, server: Running) -> None:
    for _ in range(2):
        client.classify(images(16))
    assert len(half.copies) == len(set(half.copies)) == 2
    for request in server.cloud.requests:
        fields = {field.name for field, _ in request.ListFields()}
        assert fields == {"model_name", "model_version", "inputs", "raw_input_contents"}
        assert {field.name for field, _ in request.inputs[0].ListFields()} == {"name", "datatype", "shape"}
        wire = request.SerializeToString()
        for coeffs, order in half.copies:
            assert coeffs[:64] not in wire
            assert np.frombuffer(coeffs).astype(np.float32).tobytes()[:32] not in wire
            assert order[:32] not in wire
    assert len(set(server.cloud.digests)) == len(server.cloud.digests) == 32


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


def test_many_calls_at_once(half: WatchedHalf, server: Running) -> None:
    async def calls() -> None:
        async with AsyncClient(half, server.address, decoys=DECOYS) as client:
            sizes = [1, 4, 7, 12, 30]
            pictures = [images(sizes[n % 5], seed=n) for n in range(40)]
            for picture, answer in zip(pictures, await asyncio.gather(*map(client.classify, pictures)), strict=True):
                check(answer, picture)

    asyncio.run(calls())
    assert half.wiped
    assert server.cloud.described == 1  # one connection, asked once


def test_the_wire_dtype_is_what_the_server_takes(half: WatchedHalf, server: Running) -> None:
    """A server that is not ours names one datatype."""
    del server.cloud.metadata.properties[DATATYPES_PROPERTY]
    server.cloud.metadata.inputs[0].datatype = "FP16"
    with Client(half, server.address) as client:
        check(client.classify(images(8)), images(8), 5e-3)
    assert server.cloud.requests[0].inputs[0].datatype == "FP16"


def test_what_a_server_need_not_say(half: WatchedHalf, server: Running) -> None:
    cloud = server.cloud
    cloud.metadata.properties.clear()
    del cloud.metadata.versions[:]

    async def tersely(cloud: FakeCloud, number: int, request, context):  # type: ignore[no-untyped-def]
        answer = cloud.answer(request)
        answer.ClearField("parameters")
        answer.ClearField("model_version")
        return answer

    cloud.behave = tersely
    with Client(half, server.address) as client:
        answer = client.classify(images(8))
    check(answer, images(8))
    assert answer.cost.cloud_seconds == 0


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


def test_closing(half: WatchedHalf, server: Running) -> None:
    client = Client(half, server.address)
    client.classify(images(8))
    client.close()
    client.close()
    for call in (lambda: client.classify(images(8)), lambda: client.stream([]), client.__enter__):
        with pytest.raises(RuntimeError, match="Client: must be open, got a closed one"):
            call()


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
        assert half.wiped
        seen = read
        check(client.classify(images(4)), images(4))
    assert read <= seen + 1


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


def test_a_stream_whose_client_is_closed(half: WatchedHalf, server: Running) -> None:
    client = Client(half, server.address, decoys=DECOYS)
    stream = client.stream(iter(images(40)))
    next(stream)
    client.close()
    with pytest.raises(RuntimeError, match="must be open"):
        list(stream)
    assert half.wiped


def test_still_pictures_do_not_fill_a_group(client: Client, half: WatchedHalf) -> None:
    """The same image over and over: its group is filled with decoys."""
    labels = [prediction.label for prediction in client.stream([images(1)[0]] * 33)]
    assert labels == expected(images(1)).argmax(1).tolist() * 33
    for batch in half.batches:
        assert len(np.unique(batch, axis=0)) == len(batch)


def test_scores_have_a_row_for_each_image_and_a_column_for_each_class(client: Client) -> None:
    assert client.classify(images(6)).scores.shape == (6, CLASSES)
