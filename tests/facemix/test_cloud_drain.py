"""The cloud told to stop: it says so, finishes what it has, and goes."""

from __future__ import annotations

import asyncio
import signal
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import proxy
import pytest
from cloud_process import Cloud
from cloud_server import (
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
from facemix.cloud import server
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


def test_what_has_begun_ends_and_nothing_new_begins(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path)) as (server, channel):
            stub = stub_of(channel)
            assert await health_of(channel) == SERVING
            assert await health_of(channel, "inference.GRPCInferenceService") == SERVING
            watcher = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watcher.read()).status == SERVING
            computed = asyncio.ensure_future(stub.ModelInfer(message(rows(1))))
            await until(model.started)
            queued = asyncio.ensure_future(stub.ModelInfer(message(rows(2))))
            await waiting(server, 1)

            draining = asyncio.create_task(server.drain())
            assert (await watcher.read()).status == NOT_SERVING
            assert await health_of(channel) == NOT_SERVING
            assert await health_of(channel, "inference.GRPCInferenceService") == NOT_SERVING
            assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
            assert not (await stub.ModelReady(pb.ModelReadyRequest(name="middle"))).ready
            assert (await stub.ServerLive(pb.ServerLiveRequest())).live
            assert await code_of(stub.ModelInfer(message(rows(1)))) == grpc.StatusCode.UNAVAILABLE
            assert not draining.done()

            model.gate.set()
            await draining
            assert [len(answer(await call)) for call in (computed, queued)] == [1, 2]

    run(scenario())


def test_who_stops_watching_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (cloud, channel):
            watch = health_pb2_grpc.HealthStub(channel).Watch
            stays, leaves = (watch(health_pb2.HealthCheckRequest()) for _ in range(2))
            named = watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
            for watcher in (stays, leaves, named):
                assert (await watcher.read()).status == SERVING
            leaves.cancel()
            assert await health_of(channel) == SERVING  # by now it has heard of that
            await cloud.drain()
            for watcher in (stays, named):
                assert (await watcher.read()).status == NOT_SERVING
            async with asyncio.timeout(10):  # the server need not wait for them either
                await cloud.stop()
            for watcher in (stays, named):
                assert await watcher.read() is grpc.aio.EOF

    run(scenario())


def test_nobody_watches_a_service_that_is_not_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(repository([Doubler()], tmp_path)) as (_, channel):
            watcher = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="x"))
            assert [answer.status async for answer in watcher] == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN]

    run(scenario())


def test_draining_ends_at_its_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path), drain_seconds=0.2) as (server, channel):
            call = asyncio.ensure_future(stub_of(channel).ModelInfer(message(rows(1))))
            await until(model.started)
            await server.drain()
            await server.stop()
            assert await code_of(call) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            model.gate.set()

    run(scenario())
    assert "not all drained" in [record.message for record in caplog.records]


def test_answers_that_have_left_the_server_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has them, and would throw them away with the connection."""
    monkeypatch.setattr(server, "LAST_SECONDS", 0.05)
    large, window = message(rows(200_000)), [("grpc.http2.lookahead_bytes", 1 << 23)]

    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path), max_batch=65536) as (cloud, _):
            with proxy.Proxy(cloud.address) as link:
                async with grpc.aio.insecure_channel(link.address, window) as channel:
                    call = asyncio.ensure_future(stub_of(channel).ModelInfer(large))
                    await until(model.started)
                    link.fault = proxy.Fault("pause", way="down", once=False)
                    model.gate.set()
                    await calls(cloud, 0)
                    await cloud.drain()
                    stopping = asyncio.create_task(cloud.stop())
                    await asyncio.sleep(0.3)
                    link.fault = None
                    assert len(answer(await call)) == 200_000
                    await stopping

    run(scenario())


def test_a_process_told_to_stop_answers_first(cloud_file: Path) -> None:
    """The request is long enough to be under way when the signal comes: the process says so in its metrics."""
    options = ("--metrics-port", "0", "--max-message-mib", "64", "--max-batch", "512", "--threads", "1")
    with Cloud("--model", str(cloud_file), *options) as cloud:
        features = np.zeros((4000, 8, 8, 8), np.float32)
        with grpc.insecure_channel(cloud.address, options=[("grpc.max_send_message_length", -1)]) as channel:
            call = GRPCInferenceServiceStub(channel).ModelInfer.future(message(features))
            end = time.monotonic() + 30
            while b"facemix_queue_requests 1.0" not in scrape(cloud):
                assert not call.done()
                assert time.monotonic() < end
            cloud.process.send_signal(signal.SIGTERM)
            assert len(answer(call.result(60))) == 4000
        assert cloud.wait() == 0
    assert [line["event"] for line in cloud.log] == ["serving", "draining", "stopped"]


def scrape(cloud: Cloud) -> bytes:
    with urllib.request.urlopen(f"http://{cloud.log[0]['metrics']}/metrics", timeout=10) as reply:
        return reply.read()
