"""However a call ends, it ends in time, and its key with it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from bundles import bundle_bytes
from edge_halves import ROW, WatchedHalf, check, expected, images
from facemix.edge import AsyncClient, Client, CloudError, CloudTimeout, CloudUnreachable
from fake_cloud import Behaviour, Context, FakeCloud, Running, failing, hang, well
from processes import output_of

PICTURES = images(32)


@pytest.mark.parametrize("hanging", [1, 4])
def test_the_deadline_holds_when_the_server_hangs(hanging: int, half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < hanging:
            await asyncio.sleep(3600)

    server.cloud.behave = behave
    with Client(half, server.address, timeout=1, message_bytes=8 * ROW) as client:
        with pytest.raises(CloudTimeout, match=r"no answer from 127.0.0.1:\d+ (within 1 s|in time)"):
            client.classify(PICTURES)
        check(client.classify(PICTURES), PICTURES)
    assert 0 < server.cloud.remaining < 1


def test_a_server_that_says_nothing_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, Client(
        half := WatchedHalf(), f"127.0.0.1:{mute.getsockname()[1]}", timeout=0.3
    ) as client, pytest.raises(CloudTimeout):  # fmt: skip
        client.classify(PICTURES)
    assert not half.keys


class Forwarder:
    """Passes bytes on to `port`. What is connected when it goes `deaf` hears nothing more, and is not told so.

    Attributes:
        open: connections that the client has not closed.
    """

    def __init__(self, port: int) -> None:
        self._port, self._old = port, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.open = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def deaf(self) -> None:
        self._old.set()
        self._old = threading.Event()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                edge, _ = self._listener.accept()
            except OSError:
                return
            cloud = socket.create_connection(("127.0.0.1", self._port))
            self.open += 1
            threading.Thread(target=self._pass_on, args=(edge, cloud, self._old, 1), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(cloud, edge, self._old, 0), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, old: threading.Event, counts: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not old.is_set():
                    sink.sendall(data)
        self.open -= counts
        sink.close()


def test_a_connection_that_dies_without_a_word(half: WatchedHalf, server: Running) -> None:
    """One call waits in vain; the next gets a connection of its own, and the dead one is closed."""
    way = Forwarder(int(server.address.rpartition(":")[2]))
    with contextlib.closing(way), Client(half, way.address, timeout=1) as client:
        check(client.classify(PICTURES), PICTURES)
        way.deaf()
        with pytest.raises(CloudTimeout):
            client.classify(PICTURES)
        check(client.classify(PICTURES), PICTURES)
        while way.open > 1:
            time.sleep(0.005)
        assert way.open == 1


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with Client(half := WatchedHalf(), address) as client, pytest.raises(CloudUnreachable, match=address):
            client.classify(PICTURES)
    assert not half.keys


def test_cancelled(half: WatchedHalf, server: Running) -> None:
    """A task that is cancelled ends its messages at the server, and its key."""

    async def run() -> None:
        async with AsyncClient(half, server.address, message_bytes=8 * ROW) as client:
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
            server.cloud.behave = well
            check(await client.classify(PICTURES), PICTURES)

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


@pytest.mark.parametrize("behave", [hang, failing(grpc.StatusCode.INTERNAL), failing(grpc.StatusCode.UNAVAILABLE)])
def test_nothing_of_a_failure_stays_in_memory(behave: Behaviour, half: WatchedHalf, server: Running) -> None:
    """Payloads go at once, and do not wait for the garbage collector."""
    server.cloud.behave = behave
    gc.collect()
    gc.disable()
    try:
        client = Client(half, server.address, timeout=1, attempts=2, message_bytes=8 * ROW)
        with client, contextlib.suppress(CloudError):
            client.classify(PICTURES)
        assert half.payloads
        assert not any(payload() is not None for payload in half.payloads)
    finally:
        gc.enable()


def test_interrupted_from_the_keyboard(half: WatchedHalf, server: Running) -> None:
    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        await asyncio.sleep(3600)

    server.cloud.behave = behave
    with Client(half, server.address) as client:
        with pytest.raises(KeyboardInterrupt):
            client.classify(PICTURES)
        assert half.wiped


def test_closing(half: WatchedHalf, server: Running) -> None:
    client = Client(half, server.address)
    client.classify(images(8))
    client.close()
    client.close()
    for call in (lambda: client.classify(images(8)), lambda: client.stream([]), client.__enter__):
        with pytest.raises(RuntimeError, match="Client: must be open, got a closed one"):
            call()


def test_where_a_loop_runs_already(half: WatchedHalf, server: Running) -> None:
    """As in a notebook."""

    async def cell() -> None:
        with Client(half, server.address) as client:
            check(client.classify(PICTURES), PICTURES)
            assert len(list(client.stream(PICTURES))) == len(PICTURES)

    asyncio.run(cell())


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


def test_a_program_that_ends_in_the_middle(server: Running, tmp_path: Path) -> None:
    """A stream, and a call that hangs, are left as they are."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if request.inputs[0].shape[0] > 16:
            await asyncio.sleep(3600)

    server.cloud.behave = behave
    (tmp_path / "edge.safetensors").write_bytes(bundle_bytes())
    np.save(tmp_path / "pictures.npy", PICTURES)
    here = Path(__file__).parents[3]
    code = f"""
import sys, threading
sys.path[:0] = [{str(here / "python")!r}, {str(here)!r}]
import numpy as np
from facemix.edge import Client
from facemix_ops.edge import EdgeModel
pictures = np.load("pictures.npy")
client = Client(EdgeModel.load("edge.safetensors", threads=1), {server.address!r}, request_groups=8)
stream = client.stream(iter(pictures[:4]))
print(next(stream).label)
threading.Thread(target=client.classify, args=(pictures,), daemon=True).start()
"""
    assert output_of(code, tmp_path) == f"{expected(PICTURES[:1]).argmax()}\n"


def test_a_fork_must_make_its_own(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address) as client:
        check(client.classify(PICTURES), PICTURES)
        results = multiprocessing.get_context("fork").SimpleQueue()

        def child() -> None:
            for use in (lambda: client.classify(PICTURES), lambda: Client(half, server.address)):
                try:
                    use()
                except RuntimeError as error:
                    results.put(str(error))

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert results.get() == "Client: must be used in the process that made it, got a fork of that"
        assert results.get().startswith("Client: must be made in a process that was forked before the first call of")
        process.join()
        check(client.classify(PICTURES), PICTURES)
