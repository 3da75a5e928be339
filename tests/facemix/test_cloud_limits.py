"""What the cloud does not take: more than the queue holds, messages that do not come, messages that are none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from cloud_server import (
    INFER,
    Doubler,
    answer,
    calls,
    code_of,
    message,
    repository,
    rows,
    run,
    serving,
    stub_of,
    until,
    waiting,
)
from facemix.cloud import inference, server
from facemix.wire.names import RETRY_AFTER


def hint_of(error: grpc.aio.AioRpcError) -> int:
    return int(dict(error.trailing_metadata())[RETRY_AFTER])


def test_beyond_the_queue_calls_are_refused_with_a_hint(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        large = message(rows(15_000))  # 240 kB, and twice as much for the answer: two are more than 1 MiB
        async with serving(repository([model], tmp_path), queue_mib=1) as (cloud, channel):
            stub = stub_of(channel)
            await stub.ModelInfer(large)  # measures how fast it is
            model.gate.clear()
            model.started.clear()
            held = asyncio.ensure_future(stub.ModelInfer(large))
            await until(model.started)
            with pytest.raises(grpc.aio.AioRpcError, match="the queue must hold 1048576 bytes at most") as caught:
                await stub.ModelInfer(large)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert 10 <= hint_of(caught.value) <= 30_000
            small = asyncio.ensure_future(stub.ModelInfer(message(rows(3))))  # fits beside it
            await waiting(cloud, 1)
            model.gate.set()
            assert len(answer(await held)) == 15_000
            assert len(answer(await small)) == 3
            assert len(answer(await stub.ModelInfer(large))) == 15_000  # and there is room again

    run(scenario())


def test_a_request_larger_than_the_queue_is_taken_when_it_is_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path), queue_mib=1, max_batch=65536) as (_, channel):
            assert len(answer(await stub_of(channel).ModelInfer(message(rows(100_000))))) == 100_000

    run(scenario())


def test_a_message_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "RECEIVE_SECONDS", 0.2)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            call = channel.stream_unary(INFER)(metadata=[("a", "b")])
            with pytest.raises(grpc.aio.AioRpcError, match=r"the message must come within 0\.2 s") as caught:
                await call
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED

    run(scenario())


def test_calls_beyond_the_last_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CALLS", 2)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (cloud, channel):
            hang = [channel.stream_unary(INFER)(metadata=[("a", "b")]) for _ in range(2)]
            await calls(cloud, 2)
            assert await code_of(stub_of(channel).ModelInfer(message(rows(2)))) == grpc.StatusCode.RESOURCE_EXHAUSTED
            for call in hang:
                call.cancel()
            await calls(cloud, 0)
            assert len(answer(await stub_of(channel).ModelInfer(message(rows(2))))) == 2

    run(scenario())


def test_messages_are_received_so_many_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path), max_receiving=1, max_delay_ms=0) as (cloud, channel):
            hangs = channel.stream_unary(INFER)(metadata=[("a", "b")])
            await calls(cloud, 1)
            waits = asyncio.ensure_future(stub_of(channel).ModelInfer(message(rows(2))))
            await calls(cloud, 2)
            await asyncio.sleep(0.2)
            assert not waits.done()
            hangs.cancel()  # who has gone makes room
            assert len(answer(await waits)) == 2

    run(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff" * 100, grpc.StatusCode.INVALID_ARGUMENT),
        (b"", grpc.StatusCode.NOT_FOUND),  # a request in which every field has its default
    ],
)
def test_messages_that_ask_for_nothing_are_refused(tmp_path: Path, data: bytes, code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            assert await code_of(channel.unary_unary(INFER)(data)) == code
            assert len(answer(await stub_of(channel).ModelInfer(message(rows(2))))) == 2  # it goes on serving

    run(scenario())


@pytest.mark.parametrize(
    ("count", "code"),
    [(0, grpc.StatusCode.INVALID_ARGUMENT), (2, grpc.StatusCode.OK)],  # the second is nobody's
)
def test_a_call_is_one_message(tmp_path: Path, count: int, code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path)) as (_, channel):
            call = channel.stream_unary(INFER)(metadata=[("a", "b")])
            for _ in range(count):
                await call.write(message(rows(2)).SerializeToString())
            await call.done_writing()
            model.gate.set()  # not before: gRPC's client calls what it sends after the answer an error
            assert await code_of(call) == code
            assert len(answer(await stub_of(channel).ModelInfer(message(rows(2))))) == 2  # it goes on serving

    run(scenario())


def test_what_comes_back_as_it_was_sent_is_short(tmp_path: Path) -> None:
    async def scenario() -> None:
        request = message(rows(1))
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            request.id = "x" * 256
            assert (await stub_of(channel).ModelInfer(request)).id == request.id
            request.id += "x"
            with pytest.raises(grpc.aio.AioRpcError, match="id must have 256 characters at most, got 257") as caught:
                await stub_of(channel).ModelInfer(request)
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT

    run(scenario())


def test_large_messages_take_the_same_way(tmp_path: Path) -> None:
    """Those are unpacked in another thread."""

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path), max_batch=65536) as (_, channel):
            count = inference.SMALL_BYTES // 16 + 1
            stub = stub_of(channel)
            assert len(answer(await stub.ModelInfer(message(rows(count))))) == count
            wrong = message(rows(count))
            wrong.inputs[0].shape[0] += 1
            assert await code_of(stub.ModelInfer(wrong)) == grpc.StatusCode.INVALID_ARGUMENT
            assert await code_of(stub.ModelInfer(message(rows(count), "other"))) == grpc.StatusCode.NOT_FOUND

    run(scenario())
