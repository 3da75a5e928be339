"""What fails between edge and cloud: right answers or clear errors, no mixture sent twice, no key left."""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import facemix.edge.request
import grpc
import numpy as np
import pytest
from edge_halves import MIDDLE, WatchedHalf, expected, images
from facemix.edge import (
    Answer,
    AsyncClient,
    Client,
    CloudDenied,
    CloudError,
    CloudMismatch,
    CloudOverloaded,
    CloudRefused,
    CloudReplyError,
    CloudTimeout,
    CloudUnreachable,
)
from facemix.edge.request import FIRST_PAUSE, LONGEST_PAUSE, pause_after
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import NETWORK, RETRY_AFTER
from fake_cloud import Behaviour, Context, FakeCloud, Running, running

PICTURES = images(32)
ROW = 5 * 6 * 5 * 4
FOUR_MESSAGES = {"message_bytes": 8 * ROW}
Code = grpc.StatusCode


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemix.edge.request, "FIRST_PAUSE", 0.01)


@pytest.fixture
def half() -> Iterator[WatchedHalf]:
    """Whatever a test did, no key is left of it."""
    half = WatchedHalf()
    yield half
    assert half.wiped


@pytest.fixture
def server(half: WatchedHalf) -> Iterator[Running]:
    """Whatever a test did, no row came twice."""
    with running(FakeCloud(half.bundle, MIDDLE)) as server:
        yield server
    assert len(set(server.cloud.digests)) == len(server.cloud.digests)
    assert len(set(half.copies)) == len(half.copies)


def check(answer: Answer) -> None:
    np.testing.assert_allclose(answer.scores, expected(PICTURES), rtol=1e-3, atol=1e-3)


def failing(code: Code, times: int = 10**6, **trailing: str) -> Behaviour:
    """The first calls fail."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < times:
            metadata = tuple((key.replace("_", "-"), value) for key, value in trailing.items())
            await context.abort(code, "as the test wants it", metadata)

    return behave


async def hang(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.DEADLINE_EXCEEDED])
def test_what_may_pass_is_tried_again_under_a_new_key(code: Code, half: WatchedHalf, server: Running) -> None:
    server.cloud.behave = failing(code, times=2)
    with Client(half, server.address) as client:
        answer = client.classify(PICTURES)
    check(answer)
    assert (answer.cost.requests, answer.cost.attempts, answer.cost.messages) == (1, 3, 3)
    assert answer.cost.bytes_up == sum(request.ByteSize() for request in server.cloud.requests)
    assert answer.cost.rows == 32
    assert len(half.keys) == 3


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.UNAVAILABLE, CloudUnreachable),
        (Code.RESOURCE_EXHAUSTED, CloudOverloaded),
        (Code.DEADLINE_EXCEEDED, CloudTimeout),
    ],
)
def test_attempts_are_counted(code: Code, error: type[CloudError], half: WatchedHalf, server: Running) -> None:
    server.cloud.behave = failing(code)
    with Client(half, server.address, attempts=3) as client, pytest.raises(error, match="as the test wants it"):
        client.classify(PICTURES)
    assert len(half.keys) == len(server.cloud.requests) == 3


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (Code.INVALID_ARGUMENT, CloudRefused, r"refused \(INVALID_ARGUMENT\): as the test wants it"),
        (Code.NOT_FOUND, CloudRefused, "NOT_FOUND"),
        (Code.INTERNAL, CloudRefused, "INTERNAL"),
        (Code.UNAUTHENTICATED, CloudDenied, "does not accept the credentials"),
        (Code.PERMISSION_DENIED, CloudDenied, "PERMISSION_DENIED"),
    ],
)
def test_what_will_not_pass_fails_at_once(
    code: Code, error: type[CloudError], text: str, half: WatchedHalf, server: Running
) -> None:
    server.cloud.behave = failing(code)
    with Client(half, server.address) as client:
        with pytest.raises(error, match=text):
            client.classify(PICTURES)
        assert len(half.keys) == 1
        server.cloud.behave = failing(code, times=0)
        check(client.classify(PICTURES))
    assert server.cloud.described == 2  # what it serves may have changed


def test_the_servers_hint_is_a_minimum(half: WatchedHalf, server: Running) -> None:
    """Later than the deadline is never, and so is what gRPC calls never."""
    for hint, after in (("60000", 60.0), ("-1", math.inf), ("soon", math.inf)):
        server.cloud.behave = failing(Code.RESOURCE_EXHAUSTED, **{RETRY_AFTER: hint})
        with Client(half, server.address) as client, pytest.raises(CloudOverloaded) as caught:
            client.classify(PICTURES)
        assert caught.value.retry_after == after
        pauses = [pause_after(caught.value, attempt) for attempt in range(1, 9)]
        assert min(pauses) >= after
    assert len(half.keys) == 3
    server.cloud.behave = failing(Code.RESOURCE_EXHAUSTED, 4, **{RETRY_AFTER: "1"})
    with Client(half, server.address) as client:
        check(client.classify(PICTURES))


def test_pauses_grow_and_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemix.edge.request, "FIRST_PAUSE", FIRST_PAUSE)
    for attempt in range(1, 12):
        pauses = [pause_after(CloudUnreachable(""), attempt) for _ in range(200)]
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
        assert 0 <= min(pauses) < 0.2 * longest
        assert 0.8 * longest < max(pauses) <= longest


def test_a_message_that_is_too_large_is_not_overload(half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        await context.abort(Code.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max (19200 vs. 5)")

    server.cloud.behave = behave
    with Client(half, server.address) as client, pytest.raises(CloudRefused, match="larger than max"):
        client.classify(PICTURES)
    assert len(half.keys) == 1


def test_one_message_that_fails_ends_the_others(half: WatchedHalf, server: Running) -> None:
    """Three of four hang; the fourth fails. The next attempt sends four others."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < 3:
            await asyncio.sleep(3600)
        if number == 3:
            await context.abort(Code.UNAVAILABLE, "gone")

    server.cloud.behave = behave
    with Client(half, server.address, **FOUR_MESSAGES) as client:
        answer = client.classify(PICTURES)
    check(answer)
    assert (answer.cost.attempts, answer.cost.messages, server.cloud.ended) == (2, 8, 3)


def test_a_server_that_stops_and_comes_back(half: WatchedHalf, server: Running) -> None:
    arrived = threading.Event()

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number == 0:
            arrived.set()
            await asyncio.sleep(3600)

    server.cloud.behave = behave
    answers: list[Answer] = []
    with Client(half, server.address, attempts=100) as client:
        call = threading.Thread(target=lambda: answers.append(client.classify(PICTURES)))
        call.start()
        assert arrived.wait(30)
        server.stop()
        server.start()
        call.join()
    check(answers[0])
    assert server.cloud.described == 2


def wrong(change: Callable[[pb.ModelInferResponse], object]) -> Behaviour:
    """The third answer is changed."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> pb.ModelInferResponse:
        answer = cloud.answer(request)
        if number == 2:
            change(answer)
        return answer

    return behave


def drop_a_row(answer: pb.ModelInferResponse) -> None:
    answer.outputs[0].shape[0] -= 1
    answer.raw_output_contents[0] = answer.raw_output_contents[0][: -7 * 4]


def not_a_number(answer: pb.ModelInferResponse) -> None:
    answer.raw_output_contents[0] = np.full(8 * 7, np.nan, np.float32).tobytes()


def named(name: str) -> Callable[[pb.ModelInferResponse], None]:
    def change(answer: pb.ModelInferResponse) -> None:
        answer.parameters[NETWORK].string_param = name

    return change


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (drop_a_row, CloudReplyError, r"output mixed_outputs must have shape \[8, 7\], got \[7, 7\]"),
        (not_a_number, CloudReplyError, "must be finite, got 56 values that are not"),
        (lambda answer: answer.ClearField("outputs"), CloudReplyError, "got 0 tensors"),
        (named("another"), CloudMismatch, "the network that answers must be 0123456789abcdef, got 'another'"),
        (lambda answer: answer.ClearField("parameters"), CloudMismatch, "answered by one network, got several"),
        (lambda answer: setattr(answer, "model_name", "big"), CloudMismatch, "the model that answers must be small"),
        (lambda answer: setattr(answer, "model_version", "4"), CloudMismatch, "the version that answers must be 3"),
    ],
)
def test_wrong_answers(
    change: Callable[[pb.ModelInferResponse], object],
    error: type[CloudError],
    text: str,
    half: WatchedHalf,
    server: Running,
) -> None:
    server.cloud.behave = wrong(change)
    with Client(half, server.address, **FOUR_MESSAGES) as client:
        with pytest.raises(error, match=text):
            client.classify(PICTURES)
        assert len(half.keys) == 1
        check(client.classify(PICTURES))  # the next one is well again


def test_outputs_of_another_width(half: WatchedHalf, server: Running) -> None:
    server.cloud.middle = MIDDLE[:, :6]
    server.cloud.metadata.outputs[0].shape[1] = 6
    with Client(half, server.address) as client, pytest.raises(CloudReplyError, match=r"must suit .* got \[32, 6\]"):
        client.classify(PICTURES)


def describe(change: Callable[[pb.ModelMetadataResponse], object], text: str, error: type[CloudError]) -> Any:
    return pytest.param(change, text, error, id=text[:30])


@pytest.mark.parametrize(
    ("change", "text", "error"),
    [
        describe(lambda m: m.properties.update({NETWORK: "x"}), "must be of network 0123", CloudMismatch),
        describe(lambda m: m.versions.__setitem__(0, "7"), "must have version 3, got '7'", CloudMismatch),
        describe(lambda m: m.inputs[0].shape.__setitem__(1, 6), r"must take .*, got \[6, 6, 5\]", CloudMismatch),
        describe(lambda m: m.properties.update({"datatypes": "FP16"}), "must take FP32, got 'FP16'", CloudMismatch),
        describe(lambda m: setattr(m.inputs[0], "name", "x"), "must have mixed_features, got 'x'", CloudReplyError),
        describe(lambda m: m.ClearField("outputs"), "must have mixed_outputs, got none", CloudReplyError),
    ],
)  # fmt: skip
def test_servers_of_something_else(
    change: Callable[[Any], object], text: str, error: type[CloudError], half: WatchedHalf, server: Running
) -> None:
    """Nothing is mixed for them."""
    change(server.cloud.metadata)
    with Client(half, server.address, wire_dtype="float32") as client, pytest.raises(error, match=text):
        client.classify(PICTURES)
    assert not half.keys
    assert not server.cloud.requests


def test_an_unknown_version(server: Running) -> None:
    with (
        Client(WatchedHalf(version=9), server.address) as client,
        pytest.raises(CloudRefused, match=r"refused \(NOT_FOUND\): no such model"),
    ):
        client.classify(PICTURES)


@pytest.mark.parametrize("hanging", [1, 4])
def test_the_deadline_holds_when_the_server_hangs(hanging: int, half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < hanging:
            await asyncio.sleep(3600)

    server.cloud.behave = behave
    with Client(half, server.address, timeout=0.3, **FOUR_MESSAGES) as client:
        with pytest.raises(CloudTimeout, match=r"no answer from 127.0.0.1:\d+ (within 0.3 s|in time)"):
            client.classify(PICTURES)
        check(client.classify(PICTURES))
    assert 0 < server.cloud.remaining < 0.3


def test_a_server_that_says_nothing_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, Client(
        half := WatchedHalf(), f"127.0.0.1:{mute.getsockname()[1]}", timeout=0.3
    ) as client, pytest.raises(CloudTimeout):  # fmt: skip
        client.classify(PICTURES)
    assert not half.keys


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(half := WatchedHalf(), address) as client, pytest.raises(CloudUnreachable, match=address):
            client.classify(PICTURES)
    assert not half.keys


def test_a_server_of_another_protocol() -> None:
    def answer(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        with (
            Client(WatchedHalf(), f"127.0.0.1:{listener.getsockname()[1]}", attempts=1) as client,
            pytest.raises(CloudUnreachable),
        ):
            client.classify(PICTURES)


def test_cancelled(half: WatchedHalf, server: Running) -> None:
    """A task that is cancelled ends its messages at the server, and its key."""

    async def run() -> None:
        async with AsyncClient(half, server.address, **FOUR_MESSAGES) as client:
            server.cloud.behave = hang
            task = asyncio.create_task(client.classify(PICTURES))
            while server.cloud.now < 4:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert half.wiped
            while server.cloud.now:
                await asyncio.sleep(0.005)
            server.cloud.behave = failing(Code.OK, times=0)
            check(await client.classify(PICTURES))

    asyncio.run(asyncio.wait_for(run(), 30))
    assert server.cloud.ended == 4


def test_cancelled_while_it_mixes(half: WatchedHalf, server: Running) -> None:
    """Nobody can stop a thread, but its key is wiped when it has one."""
    began, go_on, mix = threading.Event(), threading.Event(), half.mix

    def slowly(*args: Any, **options: Any) -> Any:
        request = mix(*args, **options)
        began.set()
        assert go_on.wait(30)
        return request

    half.mix = slowly  # type: ignore[method-assign]

    async def run() -> None:
        async with AsyncClient(half, server.address) as client:
            task = asyncio.create_task(client.classify(PICTURES))
            await asyncio.to_thread(began.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not half.wiped
            go_on.set()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert half.wiped
    assert not server.cloud.requests


def test_what_the_half_raises(half: WatchedHalf, server: Running) -> None:
    class Broken:
        bundle = half.bundle

        def mix(self, *args: Any, **options: Any) -> Any:
            request = half.mix(*args, **options)
            request.classify = self.classify
            return request

        def classify(self, reply: Any) -> Any:
            raise MemoryError

    with Client(Broken(), server.address) as client, pytest.raises(MemoryError):
        client.classify(PICTURES)
    assert half.wiped


def test_interrupted_from_the_keyboard(half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await asyncio.sleep(3600)

    server.cloud.behave = behave
    with Client(half, server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.classify(PICTURES)
        assert half.wiped


def test_closed_meanwhile(half: WatchedHalf, server: Running) -> None:
    server.cloud.behave = hang
    client = Client(half, server.address)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            client.classify(PICTURES)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not server.cloud.now:
        time.sleep(0.005)
    client.close()
    thread.join(30)
    assert [type(error) for error in errors] == [RuntimeError]
    assert half.wiped


def test_a_fork_must_make_its_own(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address) as client:
        check(client.classify(PICTURES))
        results = multiprocessing.get_context("fork").SimpleQueue()

        def child() -> None:
            try:
                client.classify(PICTURES)
            except RuntimeError as error:
                results.put(str(error))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert results.get() == "Client: must be used in the process that made it, got a fork of that"
        process.join()
        check(client.classify(PICTURES))
