"""The simulated link: its arithmetic under a clock of our own, and its bytes through real sockets.

Where real time passes, it is only held against what no link can undercut.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from facemix.cost import Exchange, Link, request_seconds, transfer_seconds
from facemix.edge import Cost
from link import exchange
from link_proxy import CHUNK_BYTES, FLIGHT_CHUNKS, Line, Proxy, shaped
from link_raw import raw_server, transfers
from link_table import COMMITTED, off_by

RATE, LATENCY = 8000.0, 0.5  # a byte takes a millisecond
FAST = Link(up=64e6, down=128e6, latency=0.01)
SECONDS = 30

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_line_has_a_rate_and_a_latency() -> None:
    line = Line(RATE, LATENCY)
    assert line.send(100, now=10.0) == pytest.approx(10.0 + 0.1 + LATENCY)


def test_bytes_wait_for_those_before_them() -> None:
    line = Line(RATE, LATENCY)
    line.send(1000, now=0.0)
    assert line.waiting(0.0) == pytest.approx(1.0)
    assert line.send(500, now=0.25) == pytest.approx(1.5 + LATENCY)
    assert line.waiting(0.25) == pytest.approx(1.25)


def test_an_idle_line_saves_nothing_up() -> None:
    line = Line(RATE, LATENCY)
    line.send(100, now=0.0)
    assert line.waiting(50.0) == 0
    assert line.send(100, now=50.0) == pytest.approx(50.1 + LATENCY)


def test_the_rate_does_not_depend_on_the_pieces() -> None:
    draw = np.random.default_rng(0)
    line, sizes = Line(RATE, LATENCY), draw.integers(0, 4096, 200)
    now = 0.0
    for size in sizes:
        arrival = line.send(int(size), now)
        now += draw.uniform(0, line.waiting(now))  # the sender comes back while there is something to send
    assert arrival == pytest.approx(sizes.sum() / 1000 + LATENCY)


@pytest.mark.parametrize(
    ("messages", "idle"),
    [(1, 0.2 - 65535e-6), (2, 0.2 - 2 * 65535e-6), (4, 0.0), (20, 0.0)],  # windows; from 4 on they outlast a round trip
)
def test_a_link_that_sent_all_windows_waits_for_the_server(messages: int, idle: float) -> None:
    exchange = Exchange(messages, bytes_up=1_000_000, bytes_down=0)
    near, far = (Link(up=8e6, down=8e6, latency=latency) for latency in (0.0, 0.1))
    assert request_seconds(far, exchange) - request_seconds(near, exchange) == pytest.approx(0.2 + idle)


def test_a_prediction_is_of_what_the_answer_cost() -> None:
    cost = Cost(
        images=8, rows=8, requests=1, attempts=1, messages=2, bytes_up=3, bytes_down=4, edge_seconds=5.0,
        cloud_seconds=6.0, network_seconds=7.0,
    )  # fmt: skip
    assert exchange(cost) == Exchange(messages=2, bytes_up=3, bytes_down=4, edge_seconds=5.0, cloud_seconds=6.0)


@contextlib.asynccontextmanager
async def through(link: Link, handler: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection over `link` to a server that runs `handler`."""
    async with asyncio.timeout(SECONDS), await asyncio.start_server(handler, "127.0.0.1", 0) as server:
        target = server.sockets[0].getsockname()[:2]
        async with await Proxy(target, link.up, link.down, link.latency).start() as proxy:
            reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname()[:2])
            with contextlib.closing(writer):
                yield reader, writer


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers at the end, when it has everything."""
    data = await reader.read(-1)
    writer.write(data)
    await writer.drain()
    writer.close()


def test_all_bytes_arrive_in_order_and_no_sooner_than_they_can() -> None:
    data = np.random.default_rng(0).bytes(300_001)

    async def run() -> None:
        async with through(FAST, echo) as (reader, writer):
            start = time.monotonic()
            writer.write(data)
            writer.write_eof()  # half-closed: the answer comes all the same
            assert await reader.read(-1) == data
            handshake = 2 * FAST.latency
            assert time.monotonic() - start >= transfer_seconds(FAST, len(data), len(data)) + handshake

    asyncio.run(run())


def test_an_end_that_breaks_off_ends_the_other() -> None:
    async def abort(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def run() -> None:
        async with through(FAST, abort) as (reader, _):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read(-1) == b""

    asyncio.run(run())


def test_who_sends_feels_that_nobody_reads() -> None:
    """The proxy does not take what it cannot hand on, so that sending far more than its queue holds does not end."""
    far_more = 8 * FLIGHT_CHUNKS * CHUNK_BYTES

    async def run() -> None:
        released = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await released.wait()
            writer.close()

        async with through(Link(up=1e12, down=1e12, latency=0.0), deaf) as (_, writer):
            writer.write(bytes(far_more))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            released.set()

    asyncio.run(run())


def test_the_proxy_as_a_process() -> None:
    size = 100_000
    with raw_server() as address, shaped(address, FAST) as far:
        (seconds,) = transfers(far, [(size, size)])
    assert seconds >= transfer_seconds(FAST, size, size)


def test_the_committed_requests_took_what_was_predicted() -> None:
    entries = json.loads(COMMITTED.read_text())["requests"]
    assert entries
    for entry in entries:
        assert abs(off_by(entry)) < 0.1, (entry["workload"], entry["wire"])
