"""Callers who do not take their answers: those count until they have left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from cloud_server import INFER, Doubler, answer, calls, code_of, message, repository, rows, run, serving, stub_of
from facemix.cloud import small_messages
from facemix.cloud.server import Server
from facemix.wire import open_inference_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from unread_http2 import Unread

LARGE = message(rows(15_000))  # the answer has 240 kB: more than a window, and twice that is counted
#: Without these a client's gRPC takes in more than it is asked for.
SMALL_WINDOW = [("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0)]


@asynccontextmanager
async def unread(server: Server) -> AsyncIterator[Any]:
    """A call of LARGE that is answered, and does not take the answer."""
    async with grpc.aio.insecure_channel(server.address, SMALL_WINDOW) as channel:
        call = channel.unary_stream(INFER, response_deserializer=pb.ModelInferResponse.FromString)(
            LARGE.SerializeToString()
        )
        while not server._metrics._sent._value.get():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        yield call


def test_answers_that_are_not_read_are_in_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path), queue_mib=1) as (server, channel):
            stub = stub_of(channel)
            async with unread(server) as call:
                with pytest.raises(grpc.aio.AioRpcError, match="the queue must hold 1048576 bytes at most") as caught:
                    await stub.ModelInfer(LARGE)
                assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert server._metrics._held_bytes._value.get() == 480_000
                assert len(answer(await call.read())) == 15_000
                await calls(server, 0)
                assert len(answer(await stub.ModelInfer(LARGE))) == 15_000
            assert server._metrics._held_bytes._value.get() == 0

    run(scenario())


def test_who_goes_without_the_answer_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (server, _):
            for way in ("cancel", "close"):
                async with unread(server) as call:
                    if way == "cancel":
                        call.cancel()
                        await calls(server, 0)
                await calls(server, 0)
            assert server._metrics._held_bytes._value.get() == 0
            assert server._metrics._requests.labels("CANCELLED")._value.get() == 2

    run(scenario())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_draining_waits_for_answers_on_the_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (server, _), unread(server) as call:
            draining = asyncio.create_task(server.drain())
            await asyncio.sleep(0.2)
            assert not draining.done()
            assert len(answer(await call.read())) == 15_000
            await draining

    run(scenario())


def test_strangers_who_read_nothing_leave_calls_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_messages, "MAX_STRANGERS", 3)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (server, channel):
            check = health_pb2_grpc.HealthStub(channel).Check
            with Unread(server.address) as stranger:
                for method in ("/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive") * 2:
                    stranger.call(method)
                await asyncio.sleep(0.3)
                assert await code_of(check(health_pb2.HealthCheckRequest())) == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert (await stub_of(channel).ServerReady(pb.ServerReadyRequest())).ready
            await asyncio.sleep(0.3)
            await check(health_pb2.HealthCheckRequest())

    run(scenario())
