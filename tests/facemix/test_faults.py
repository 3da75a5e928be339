"""Real clients and a real cloud when things go wrong between them, or in one of them.

In every test: no wrong answer, none for another's image; no key and no mixture used twice; every call ends by its
deadline, with the right answer or a CloudError; and the cloud is well afterwards. The network is one whose answers do
not depend on keys or groups (tests/helpers/exact.py), so that each can be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path

import grpc
import numpy as np
import pytest
from clouds import CloudProcess
from exact import exact_network, export, pictures
from facemix.edge import AsyncClient, CloudError, CloudMismatch, CloudOverloaded, CloudTimeout, CloudUnreachable
from facemix.export import export_cloud, export_edge
from facemix.storage import load_tensors
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import RETRY_AFTER
from grpc_health.v1 import health_pb2, health_pb2_grpc
from proxy import Fault, Proxy
from strangers import Slow, strangers
from torch import nn
from watch import Watch
from wire_requests import put_features

HELPERS = Path(__file__).parents[1] / "helpers"
TIMEOUT = 20.0  # of calls that shall be answered
BRIEF = 3.0  # of calls on a link that may pass nothing
SMALL = 4096  # bytes of a message: a few rows, so that a request is several messages
FIRST = list(range(16))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return exact_network(1)


@pytest.fixture(scope="module")
def folder(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside a folder of models to serve: edges, and other networks of the same name."""
    path = tmp_path_factory.mktemp("faults")
    for name, model, version in (("mine", network, 1), ("other", exact_network(2), 1), ("next", exact_network(2), 2)):
        (path / name).mkdir()
        export(path / name, model, "middle", version)
    (path / "served").mkdir()
    serve(path, "mine/middle-1-cloud.safetensors")
    return path


def serve(folder: Path, file: str) -> None:
    """Put a copy of `file` among what is served, as it should be done: in one move."""
    target = folder / "served" / Path(file).name
    aside = target.with_name(f".{target.name}")
    aside.write_bytes((folder / file).read_bytes())
    os.replace(aside, target)


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Iterator[CloudProcess]:
    options = ("--reload-seconds", "0.1", "--metrics-port", "0", "--queue-mib", "1")
    with CloudProcess(folder / "served", folder / "log", *options) as cloud:
        yield cloud


@pytest.fixture
def watch(folder: Path, network: nn.Module) -> Iterator[Watch]:
    watch = Watch(folder / "mine" / "middle-1-edge.safetensors", network)
    yield watch
    watch.assert_nothing_reused()


@pytest.fixture
def proxy(cloud: CloudProcess, watch: Watch) -> Iterator[Proxy]:
    with Proxy(cloud.address, watch.on_the_wire) as proxy:
        yield proxy


async def test_a_mixture_in_two_messages_is_seen(cloud: CloudProcess, network: nn.Module, folder: Path) -> None:
    """The recorder itself: the same message again is allowed, also one that broke off; some of its rows are not."""
    watch = Watch(folder / "mine" / "middle-1-edge.safetensors", network)
    with watch.mix(pictures(8)) as request, Proxy(cloud.address, watch.on_the_wire) as proxy:
        for rows, fault in ((slice(8), None), (slice(8), Fault("cut", 12_000)), (slice(2, 6), None)):
            watch.on_the_wire.assert_alike_or_different()
            message, proxy.fault = pb.ModelInferRequest(model_name="middle"), fault
            put_features(message, request.payload[rows], "FP32")
            async with grpc.aio.insecure_channel(proxy.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                rpc = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await rpc(message.SerializeToString(), timeout=TIMEOUT)
    with pytest.raises(AssertionError):
        watch.on_the_wire.assert_alike_or_different()


def held(cloud: CloudProcess) -> float:
    """Requests that wait in `cloud` or are being computed, by its own account."""
    lines = map(json.loads, cloud.log.read_text().splitlines())
    address = [line["metrics"] for line in lines if line["event"] == "serving"][-1]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        found = re.search(r"^facemix_queue_requests (\S+)$", page.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


async def assert_well(cloud: CloudProcess, watch: Watch) -> None:
    """`cloud` says that it is, has nothing left to do, and answers rightly."""
    async with grpc.aio.insecure_channel(cloud.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT, wait_for_ready=True)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    async with watch.client(cloud.address, timeout=TIMEOUT) as client:
        assert await watch.ask(client, FIRST, TIMEOUT) is None
    patience = time.monotonic() + TIMEOUT
    while held(cloud) and time.monotonic() < patience:
        await asyncio.sleep(0.05)
    assert held(cloud) == 0


@contextlib.asynccontextmanager
async def under_load(watch: Watch, address: str, errors: list[CloudError]) -> AsyncIterator[None]:
    """Two clients that go on asking until the block ends; their answers are right, and `errors` gets the rest."""
    stop = asyncio.Event()

    async def one(number: int) -> None:
        rows = cycle([FIRST, [20 + number], list(range(30, 37))])
        async with watch.client(address, timeout=TIMEOUT, message_bytes=SMALL) as client:
            while not stop.is_set():
                error = await watch.ask(client, next(rows), TIMEOUT)
                if error:
                    errors.append(error)
                    await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(one(number))
        yield
        stop.set()


async def test_a_cloud_killed_in_the_middle_and_started_again(cloud: CloudProcess, watch: Watch, proxy: Proxy) -> None:
    errors: list[CloudError] = []
    async with under_load(watch, proxy.address, errors):
        await asyncio.sleep(0.5)
        cloud.kill()
        await asyncio.to_thread(cloud.start)
        await asyncio.sleep(0.5)
    assert all(isinstance(error, CloudUnreachable) for error in errors)
    assert errors or watch.retries
    assert watch.on_the_wire.tensors()
    await assert_well(cloud, watch)


async def test_a_cloud_that_is_dead_is_said_to_be(folder: Path, network: nn.Module) -> None:
    watch = Watch(folder / "mine" / "middle-1-edge.safetensors", network)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening
        async with watch.client(f"127.0.0.1:{free.getsockname()[1]}", timeout=2.0, attempts=3) as client:
            assert isinstance(await watch.ask(client, FIRST, 2.0), CloudUnreachable | CloudTimeout)


async def test_a_cloud_that_hangs(cloud: CloudProcess, watch: Watch, proxy: Proxy) -> None:
    async with watch.client(proxy.address, timeout=2.0) as client:
        assert await watch.ask(client, FIRST, 2.0) is None
        cloud.signal(signal.SIGSTOP)
        try:
            assert isinstance(await watch.ask(client, FIRST, 2.0), CloudTimeout)
        finally:
            cloud.signal(signal.SIGCONT)
    async with watch.client(proxy.address, timeout=TIMEOUT) as client:
        cloud.signal(signal.SIGSTOP)
        asyncio.get_running_loop().call_later(1, cloud.signal, signal.SIGCONT)
        assert await watch.ask(client, FIRST, TIMEOUT) is None  # late, but in time
    await assert_well(cloud, watch)


@pytest.mark.parametrize("kind", ["cut", "half-close", "stall", "drip", "garbage"])
async def test_a_bad_link(cloud: CloudProcess, watch: Watch, kind: str) -> None:
    """At several places of a request, and of its reply: all of them at once, each on a link of its own."""

    async def ask(fault: Fault) -> CloudError | None:
        with Proxy(cloud.address, watch.on_the_wire.part()) as proxy:
            proxy.fault = fault
            async with watch.client(proxy.address, timeout=BRIEF, message_bytes=SMALL) as client:
                return await watch.ask(client, FIRST, BRIEF)

    places = [("up", 0), ("up", 60), ("up", 700), ("up", 9000), ("down", 0), ("down", 60), ("down", 700)]
    errors = await asyncio.gather(*(ask(Fault(kind, after, way)) for way, after in places))
    if kind in ("cut", "half-close"):
        assert not any(errors)  # the next attempt is answered
    if kind == "stall":
        assert {type(error) for error in errors} == {CloudTimeout}
    await assert_well(cloud, watch)


async def test_strangers_beside_the_others(cloud: CloudProcess, watch: Watch, proxy: Proxy) -> None:
    errors: list[CloudError] = []
    async with under_load(watch, proxy.address, errors):
        peers = [peer for _ in range(5) for peer in strangers(cloud.address)]
        tls = ssl.create_default_context()
        with pytest.raises(OSError, match=r"SSL|reset|closed"):
            await asyncio.open_connection(*cloud.address.split(":"), ssl=tls, ssl_handshake_timeout=3)
        async with Slow(cloud.address) as slow:
            await asyncio.sleep(1)
            assert not slow.answered
        for peer in peers:
            peer.close()
    assert not errors
    await assert_well(cloud, watch)


async def test_a_hundred_clients_that_vanish_at_once(cloud: CloudProcess, watch: Watch) -> None:
    with Proxy(cloud.address, watch.on_the_wire) as proxy:
        clients = [watch.client(proxy.address, timeout=TIMEOUT, message_bytes=SMALL) for _ in range(100)]
        calls = [asyncio.create_task(watch.ask(client, FIRST, TIMEOUT)) for client in clients]
        while watch.on_the_wire.streams < 100:  # descriptions of the model, then messages
            await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        proxy.cut_all()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, asyncio.CancelledError | CloudError) for outcome in outcomes)
        assert sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) > 10
        await asyncio.gather(*(client.close() for client in clients))
        await assert_well(cloud, watch)


async def test_a_new_version_under_load(cloud: CloudProcess, watch: Watch, proxy: Proxy, folder: Path) -> None:
    newer = Watch(folder / "next" / "middle-2-edge.safetensors", exact_network(2))
    errors: list[CloudError] = []
    async with under_load(watch, proxy.address, errors), newer.client(proxy.address, timeout=TIMEOUT) as client:
        assert isinstance(await newer.ask(client, FIRST, TIMEOUT), CloudError)
        serve(folder, "next/middle-2-cloud.safetensors")
        await until_answered(newer, client)
        (folder / "served" / "middle-2-cloud.safetensors").unlink()
    assert not errors
    newer.assert_nothing_reused()
    await assert_well(cloud, watch)


async def test_another_network_under_the_same_version(
    cloud: CloudProcess, watch: Watch, proxy: Proxy, folder: Path
) -> None:
    """Whoever asks meanwhile gets the right answer or CloudMismatch, and never a wrong answer."""
    errors: list[CloudError] = []
    async with under_load(watch, proxy.address, errors):
        serve(folder, "other/middle-1-cloud.safetensors")
        patience = time.monotonic() + TIMEOUT
        while len(errors) < 4 and time.monotonic() < patience:
            await asyncio.sleep(0.05)
        assert len(errors) >= 4
        serve(folder, "mine/middle-1-cloud.safetensors")
        async with watch.client(proxy.address, timeout=TIMEOUT) as client:
            await until_answered(watch, client)
    assert {type(error) for error in errors} == {CloudMismatch}, errors
    await assert_well(cloud, watch)


async def until_answered(watch: Watch, client: AsyncClient) -> None:
    """Ask, not forever, until there is an answer."""
    patience = time.monotonic() + TIMEOUT
    while error := await watch.ask(client, FIRST, TIMEOUT):
        assert time.monotonic() < patience, error
        await asyncio.sleep(0.05)


def test_a_disk_that_fills_up_while_exporting(
    folder: Path, network: nn.Module, watch: Watch, cloud: CloudProcess
) -> None:
    options = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
    target = folder / "served" / "middle-1-cloud.safetensors"
    before = target.read_bytes()
    files = set((folder / "served").iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(OSError, match=r"large|space"):
            export_cloud(target, exact_network(2), "resnet18", options, (1, 32, 32), name="middle")
        edge = folder / "served" / "edge.safetensors"
        with pytest.raises(OSError, match=r"large|space"):
            export_edge(edge, network, (1, 32, 32), name="middle", group_size=4, mean=[0.5], std=[0.25])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert target.read_bytes() == before
    assert set((folder / "served").iterdir()) == files
    assert load_tensors(target)[1]["name"] == "middle"
    asyncio.run(assert_well(cloud, watch))


JUMPING_CLIENTS = """
import asyncio, sys
from exact import exact_network
from watch import Watch
watch = Watch(sys.argv[2], exact_network(1))
assert not asyncio.run(watch.crowd(sys.argv[1], clients=3, calls=60, timeout=20.0))
watch.assert_nothing_reused()
"""


def test_clocks_that_jump(folder: Path, network: nn.Module) -> None:
    """A day ahead and back, several times a second, on both sides: only monotonic clocks may matter."""
    source, library = HELPERS / "jumping_clock.c", folder / "jumping_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    environment = {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    edge = folder / "mine" / "middle-1-edge.safetensors"
    options = ("--metrics-port", "0", "--reload-seconds", "0.1", "--rate", "1000000")
    with CloudProcess(folder / "served", folder / "jumping", *options, environment=environment) as cloud:
        command = [sys.executable, "-c", JUMPING_CLIENTS, cloud.address, str(edge)]
        subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=120)
        asyncio.run(assert_well(cloud, Watch(edge, network)))
    stamps = [json.loads(line)["time"] for line in (folder / "jumping").read_text().splitlines()]
    assert len({stamp[:10] for stamp in stamps}) > 1 or len(stamps) < 4  # the library was in force


async def test_a_storm(cloud: CloudProcess, watch: Watch, proxy: Proxy) -> None:
    """Strangers send more than the queue holds: clients are refused in time, or answered rightly in the end."""
    message = pb.ModelInferRequest(model_name="middle")
    put_features(message, np.random.default_rng(0).standard_normal((300, 8, 8, 8), np.float32), "FP32")
    data = message.SerializeToString()
    refusals: list[grpc.aio.AioRpcError] = []

    async def flood(channel: grpc.aio.Channel) -> None:
        while not over.is_set():
            try:
                await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(data, timeout=TIMEOUT)
            except grpc.aio.AioRpcError as error:
                refusals.append(error)
                await asyncio.sleep(0.02)

    over = asyncio.Event()
    async with grpc.aio.insecure_channel(cloud.address) as channel, asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(flood(channel))
        errors = await watch.crowd(proxy.address, clients=10, calls=3, timeout=BRIEF)
        over.set()
    assert {error.code() for error in refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert all(int(dict(error.trailing_metadata() or ())[RETRY_AFTER]) > 0 for error in refusals)
    assert all(isinstance(error, CloudOverloaded | CloudTimeout) for error in errors)
    await assert_well(cloud, watch)
