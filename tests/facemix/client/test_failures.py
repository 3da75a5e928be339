"""Calls that fail: the same bytes again where that may help, a clear error where not."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from typing import Any

import facemix.edge.request
import grpc
import pytest
from edge_halves import ROW, WatchedHalf, check, images
from facemix.edge import (
    Answer,
    AsyncClient,
    Client,
    CloudDenied,
    CloudError,
    CloudOverloaded,
    CloudRefused,
    CloudTimeout,
    CloudUnreachable,
)
from facemix.edge.failures import as_cloud_error
from facemix.edge.messages import row_bytes
from facemix.edge.request import FIRST_PAUSE, LONGEST_PAUSE, pause_after
from facemix.wire import DATATYPE_OF
from facemix.wire.names import RETRY_AFTER
from fake_cloud import Context, FakeCloud, Running, failing
from refusing_http2 import RefusingServer

PICTURES = images(32)
Code = grpc.StatusCode


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.DEADLINE_EXCEEDED])
def test_what_may_pass_is_sent_again_as_it_was(code: Code, half: WatchedHalf, server: Running) -> None:
    server.cloud.behave = failing(code, times=2)
    with Client(half, server.address) as client:
        answer = client.classify(PICTURES)
    check(answer, PICTURES)
    assert (answer.cost.requests, answer.cost.attempts, answer.cost.messages) == (1, 3, 3)
    assert answer.cost.bytes_up == sum(request.ByteSize() for request in server.cloud.requests)
    assert answer.cost.rows == 32
    assert len(half.keys) == len(server.cloud.messages) == 1


@pytest.mark.parametrize("wire_dtype", DATATYPE_OF)
def test_all_attempts_send_the_same_messages(wire_dtype: str, half: WatchedHalf, server: Running) -> None:
    """Of several messages too, of which some were answered."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number in (2, 5):
            await context.abort(Code.UNAVAILABLE, "gone")

    server.cloud.behave = behave
    size = 8 * row_bytes(half.bundle.features_shape, DATATYPE_OF[wire_dtype])
    with Client(half, server.address, message_bytes=size, max_messages=1, wire_dtype=wire_dtype) as client:
        answer = client.classify(PICTURES)
    check(answer, PICTURES, 1e-1)
    assert answer.cost.attempts == 3
    assert len(half.keys) == 1
    assert len(server.cloud.requests) > len(server.cloud.messages) == 4


def test_what_the_server_would_rather_have_by_now_changes_nothing(half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number == 0:
            cloud.metadata.properties["datatypes"] = "FP16"
            await context.abort(Code.UNAVAILABLE, "gone")

    server.cloud.behave = behave
    with Client(half, server.address) as client:
        check(client.classify(PICTURES), PICTURES)
    assert server.cloud.described == 2
    assert len(half.keys) == len(server.cloud.messages) == 1


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
    assert len(server.cloud.requests) == 3
    assert len(half.keys) == len(server.cloud.messages) == 1


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (Code.INVALID_ARGUMENT, CloudRefused, r"refused \(INVALID_ARGUMENT\): 'as the test wants it'"),
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
        check(client.classify(PICTURES), PICTURES)
    assert server.cloud.described == 2  # what it serves may have changed


@pytest.mark.parametrize("code", Code)
def test_what_a_server_says_does_not_rule_the_terminal(code: Code) -> None:
    said = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "\x1b[2J" + "A" * 6000)
    text = str(as_cloud_error(said, "the server"))
    assert text.isprintable()
    assert r"'\x1b[2JAAA" in text
    assert len(text) < 500


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
        check(client.classify(PICTURES), PICTURES)


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
    """Three of four hang; the fourth fails. The next attempt sends all four again."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < 3:
            await asyncio.sleep(3600)
        if number == 3:
            await context.abort(Code.UNAVAILABLE, "gone")

    server.cloud.behave = behave
    with Client(half, server.address, message_bytes=8 * ROW) as client:
        answer = client.classify(PICTURES)
    check(answer, PICTURES)
    assert (answer.cost.attempts, answer.cost.messages, server.cloud.ended) == (2, 8, 3)
    assert (len(half.keys), len(server.cloud.messages)) == (1, 4)


def test_grpc_sends_nothing_again_by_itself(half: WatchedHalf, cloud: FakeCloud) -> None:
    """Not even calls that the server says it has not looked at; others have seen them on the way."""
    with (
        contextlib.closing(RefusingServer(cloud.metadata)) as server,
        Client(half, server.address, attempts=3) as client,
        pytest.raises(CloudUnreachable),
    ):
        client.classify(PICTURES)
    assert len(server.refused) == 3
    assert len(half.keys) == len(set(server.refused)) == 1


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
    check(answers[0], PICTURES)
    assert server.cloud.described == 2


def test_requests_that_wait_to_be_sent_again_count_as_under_way(
    half: WatchedHalf, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their payloads are kept, and others are not mixed on top of them without end."""
    monkeypatch.setattr(facemix.edge.request, "pause_after", lambda error, attempt: 3600.0)
    server.cloud.behave = failing(Code.UNAVAILABLE, times=1)

    async def run() -> None:
        options: dict[str, Any] = {"message_bytes": 8 * ROW, "max_messages": 1, "timeout": 1e5}
        async with AsyncClient(half, server.address, **options) as client:
            waits = asyncio.create_task(client.classify(PICTURES))
            while not server.cloud.requests:
                await asyncio.sleep(0.005)
            other = asyncio.create_task(client.classify(PICTURES[::-1]))
            await asyncio.sleep(0.1)
            assert len(half.keys) == 1
            assert not half.wiped
            waits.cancel()
            check(await other, PICTURES[::-1])
            with pytest.raises(asyncio.CancelledError):
                await waits

    asyncio.run(asyncio.wait_for(run(), 30))
    assert half.wiped
