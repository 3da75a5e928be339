"""A TCP proxy with faults, for tests: what a bad link, a bad peer or somebody in between does to a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Fault", "Proxy"]

CHUNK = 1 << 16
DRIP_SECONDS = 0.02  # between two bytes


@dataclass(frozen=True)
class Fault:
    """What befalls the connection that carries byte `after`, counted from when the fault was set.

    Attributes:
        kind: "cut" resets both sides; "half-close" ends this way and leaves the other open; "stall" passes nothing
            more; "pause" passes nothing until the fault is taken away; "drip" passes single bytes, slowly; "garbage"
            passes random bytes instead.
        way: "up" to the server, or "down" to the client.
        once: later connections pass; else they all suffer.
    """

    kind: Literal["cut", "half-close", "stall", "pause", "drip", "garbage"]
    after: int = 0
    way: Literal["up", "down"] = "up"
    once: bool = True


class Proxy:
    """Passes connections to `target` ("host:port") from a free port of its own, in a thread; a context manager.

    Attributes:
        address: "host:port" to connect to.
        on_up: called with (connection number, bytes) for all that clients send, in the proxy's thread.
        connections: how many there were.
    """

    def __init__(self, target: str, on_up: Callable[[int, bytes], None] | None = None) -> None:
        self.target, self.on_up, self.connections = target, on_up, 0
        self._fault: Fault | None = None
        self._passed = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def fault(self) -> Fault | None:
        """The fault that waits for its byte; None: all passes."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._fault, self._passed = fault, 0

    def cut_all(self) -> None:
        """Reset every connection there is."""
        asyncio.run_coroutine_threadsafe(self._cut_all(), self._loop).result(10)

    def __enter__(self) -> Proxy:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *unused: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _cut_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        with self._closing(writer), contextlib.suppress(OSError, asyncio.CancelledError):
            host, port = self.target.rsplit(":", 1)
            up_reader, up_writer = await asyncio.open_connection(host, int(port))
            with self._closing(up_writer):
                pair = (writer, up_writer)
                await asyncio.gather(
                    self._pass(number, "up", reader, up_writer, pair),
                    self._pass(number, "down", up_reader, writer, pair),
                )

    @contextlib.contextmanager
    def _closing(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(
        self,
        number: int,
        way: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        """Carry one way of a connection until its end, or its fault."""
        while data := await reader.read(CHUNK):
            if way == "up" and self.on_up:
                self.on_up(number, data)
            fault, good = self._strikes(way, data)
            writer.write(data[:good])
            if fault:
                await self._suffer(fault, data[good:], reader, writer, pair)
                return
            await writer.drain()
        writer.write_eof()

    def _strikes(self, way: str, data: bytes) -> tuple[Fault | None, int]:
        """The fault that begins within `data`, if one does, and how much of `data` is spared."""
        fault = self._fault
        if fault is None or fault.way != way:
            return None, len(data)
        good = max(0, fault.after - self._passed)
        self._passed += len(data)
        if good >= len(data):
            return None, len(data)
        if fault.once:
            self._fault = None
        return fault, good

    async def _suffer(
        self,
        fault: Fault,
        rest: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        match fault.kind:
            case "cut":
                for side in pair:
                    side.transport.abort()
            case "half-close":
                writer.write_eof()
                while await reader.read(CHUNK):
                    pass
            case "stall":
                await asyncio.Event().wait()
            case "pause":
                while self._fault is fault:
                    await asyncio.sleep(0.01)
                while rest:
                    writer.write(rest)
                    await writer.drain()
                    rest = await reader.read(CHUNK)
            case "drip":
                while rest:
                    for byte in rest:
                        writer.write(bytes([byte]))
                        await writer.drain()
                        await asyncio.sleep(DRIP_SECONDS)
                    rest = await reader.read(CHUNK)
            case "garbage":
                while rest:
                    writer.write(os.urandom(len(rest)))
                    await writer.drain()
                    rest = await reader.read(CHUNK)
