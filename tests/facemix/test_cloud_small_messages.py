"""What all methods but ModelInfer do not take: messages that are large, do not come, or are none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from cloud_server import Doubler, code_of, repository, run, serving, stub_of
from facemix.cloud import small_messages
from facemix.wire import open_inference_pb2 as pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
METHODS = [
    CHECK, WATCH, REFLECTION,
    *(f"/inference.GRPCInferenceService/{name}" for name in (
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata",
    )),
]  # fmt: skip


def call(channel: grpc.aio.Channel, method: str, *messages: bytes) -> Any:
    """One that reads the first answer; without messages it sends nothing, and keeps the call open."""
    stream = channel.stream_stream(method)(metadata=[("a", "b")])

    async def answer() -> bytes:
        for message in messages:
            await stream.write(message)
        return await stream.read()

    return answer()


@pytest.mark.parametrize("method", METHODS)
def test_messages_that_are_large_or_none(tmp_path: Path, method: str) -> None:
    name = b"\x0a\xff\x7f" + b"x" * 16383  # field 1, a text in most of the methods

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            assert await code_of(call(channel, method, name)) == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await code_of(call(channel, method, b"\xff" * 100)) == grpc.StatusCode.INVALID_ARGUMENT

    run(scenario())


@pytest.mark.parametrize("method", METHODS)
def test_messages_that_do_not_come_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(small_messages, "RECEIVE_SECONDS", 0.2)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            assert await code_of(call(channel, method)) == grpc.StatusCode.DEADLINE_EXCEEDED

    run(scenario())


def test_a_call_without_a_message_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            for method in (CHECK, WATCH):
                assert await code_of(channel.stream_unary(method)(iter([]))) == grpc.StatusCode.INVALID_ARGUMENT

    run(scenario())


def test_who_holds_back_messages_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many are received at a time; those that have a token wait for no stranger."""
    monkeypatch.setattr(small_messages, "HURRIED_SECONDS", 0.5)
    monkeypatch.setattr(small_messages, "RECEIVE_SECONDS", 60.0)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            stub, health = stub_of(channel), health_pb2_grpc.HealthStub(channel)
            idle = [asyncio.ensure_future(call(channel, CHECK)) for _ in range(small_messages.SLOTS)]
            await asyncio.sleep(0.3)
            assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
            assert not any(one.done() for one in idle)
            assert (
                await health.Check(health_pb2.HealthCheckRequest())
            ).status == health_pb2.HealthCheckResponse.SERVING
            (ended,), _ = await asyncio.wait(idle, return_when=asyncio.FIRST_COMPLETED)
            assert await code_of(ended) == grpc.StatusCode.DEADLINE_EXCEEDED
            for one in idle:
                one.cancel()

    run(scenario())


def test_who_watches_holds_no_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_messages, "SLOTS", 1)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            health, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            watchers = [health.Watch(request) for _ in range(5)]
            for watcher in watchers:
                await watcher.read()
            await health.Check(request)

    run(scenario())


def test_strangers_leave_calls_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_messages, "MAX_STRANGERS", 3)

    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            health, request = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest()
            watchers = [health.Watch(request) for _ in range(3)]
            for watcher in watchers:
                await watcher.read()
            for method in (CHECK, WATCH):
                assert await code_of(call(channel, method, b"")) == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await stub_of(channel).ServerReady(pb.ServerReadyRequest())).ready
            watchers[0].cancel()
            await asyncio.sleep(0.3)
            await health.Check(request)

    run(scenario())


def test_a_stream_may_have_many_messages(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
            stream = channel.stream_stream(REFLECTION)(iter([question] * 3))
            assert len([answer async for answer in stream]) == 3

    run(scenario())
