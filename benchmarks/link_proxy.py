"""A slow link on one machine: a proxy that lets bytes through at a rate, and late.

    python benchmarks/link_proxy.py HOST:PORT UP DOWN LATENCY      (bit/s, bit/s, seconds one way)

prints its own address, and ends with its input. Each direction is one line that all connections share. Bytes wait in a
queue of bounded length, so that a sender feels the rate as back-pressure and not as a kernel full of bytes. A
connection opens as late as TCP's handshake would. TCP's slow start and losses are not simulated: to both ends TCP is as
quick as on loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that runs this file needs none of it
    from facemix.cost import Link

CHUNK_BYTES = 4096  # 2 ms at 15 Mibit/s
QUEUE_SECONDS = 0.02  # of bytes that wait for the line: more than a timer of asyncio is late
FLIGHT_CHUNKS = 512  # that left and have not arrived; reached only where the receiver reads nothing
SOCKET_BYTES = 65536  # each of the kernel's buffers
SEGMENT_BYTES = 1448  # as on Ethernet: the segments of loopback do not fit the buffers, and would wait for timers

Flight = asyncio.Queue[tuple[float, bytes]]


class Line:
    """One direction: bytes leave one after the other at `rate` bit/s, and arrive `latency` seconds later."""

    def __init__(self, rate: float, latency: float) -> None:
        self._rate, self._latency, self._free = rate, latency, 0.0

    def send(self, size: int, now: float) -> float:
        """Put `size` bytes on the line; returns when the last of them arrives."""
        self._free = max(self._free, now) + 8 * size / self._rate
        return self._free + self._latency

    def waiting(self, now: float) -> float:
        """Seconds until all that was put on the line has left."""
        return max(0.0, self._free - now)


class Proxy:
    """Forwards connections to `target`, in a running event loop; `up` is the direction to it."""

    def __init__(self, target: tuple[str, int], up: float, down: float, latency: float) -> None:
        self._target, self._latency = target, latency
        self._up, self._down = Line(up, latency), Line(down, latency)

    async def start(self) -> asyncio.Server:
        """Listen on a free port of loopback."""
        listener = _bounded(socket.socket())
        listener.bind(("127.0.0.1", 0))
        return await asyncio.start_server(self._connection, sock=listener, limit=CHUNK_BYTES)

    async def _connection(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        up, down = Flight(FLIGHT_CHUNKS), Flight(FLIGHT_CHUNKS)
        # Cancelled means that the proxy ends.
        with contextlib.closing(to_client), contextlib.suppress(asyncio.CancelledError):
            try:
                async with asyncio.TaskGroup() as tasks:
                    # The client may send when SYN and its answer have passed, the server when the next packet came.
                    await asyncio.sleep(2 * self._latency)
                    tasks.create_task(_depart(client, self._up, up))
                    await asyncio.sleep(self._latency)
                    server, to_server = await asyncio.open_connection(sock=await self._open(), limit=CHUNK_BYTES)
                    with contextlib.closing(to_server):
                        tasks.create_task(_arrive(up, to_server))
                        tasks.create_task(_depart(server, self._down, down))
                        await _arrive(down, to_client)
            except* OSError:  # one end broke off, and now the other does
                pass

    async def _open(self) -> socket.socket:
        connection = _bounded(socket.socket())
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, self._target)
        return connection


async def _depart(sender: asyncio.StreamReader, line: Line, flight: Flight) -> None:
    """Read as fast as the line carries, up to the end, which an empty chunk stands for."""
    data = b"-"
    while data:
        data = await sender.read(CHUNK_BYTES)
        await flight.put((line.send(len(data), time.monotonic()), data))
        await asyncio.sleep(max(0.0, line.waiting(time.monotonic()) - QUEUE_SECONDS))


async def _arrive(flight: Flight, receiver: asyncio.StreamWriter) -> None:
    """Hand on each chunk when its time has come."""
    while True:
        arrival, data = await flight.get()
        await asyncio.sleep(max(0.0, arrival - time.monotonic()))
        if not data:
            receiver.write_eof()
            return
        receiver.write(data)
        await receiver.drain()


def _bounded(connection: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@contextlib.contextmanager
def shaped(target: str, link: Link) -> Iterator[str]:
    """Run the proxy in a process of its own; yields its "host:port"."""
    numbers = (str(number) for number in (link.up, link.down, link.latency))
    command = [sys.executable, __file__, target, *numbers]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin:
            yield process.stdout.readline().strip()


async def _main(target: str, up: str, down: str, latency: str) -> None:
    host, _, port = target.rpartition(":")
    server = await Proxy((host, int(port)), float(up), float(down), float(latency)).start()
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
