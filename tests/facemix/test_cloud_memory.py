"""Messages that nobody has asked for stay with their senders."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
from cloud_process import Cloud
from cloud_server import INFER

MIB = 1024 * 1024
CALLS, SIZE = 32, 4 * MIB


def test_unread_messages_take_little_memory(cloud_file: Path) -> None:
    """Left to itself, gRPC would take all 128 MiB in."""
    end = threading.Event()
    with Cloud("--model", str(cloud_file), "--max-receiving", "1", "--threads", "1") as cloud:
        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(cloud.address, options=options) as channel:
            stop = channel.stream_unary(INFER).future(_after(end))  # has the only place, and sends nothing
            time.sleep(0.5)
            before = psutil.Process(cloud.process.pid).memory_info().rss
            data = bytes(SIZE)
            waiting = [channel.unary_unary(INFER).future(data) for _ in range(CALLS)]
            time.sleep(3)
            grown = psutil.Process(cloud.process.pid).memory_info().rss - before
            assert not any(call.done() for call in waiting)
            for call in (*waiting, stop):
                call.cancel()
            end.set()
        assert grown < CALLS * SIZE / 4


def _after(event: threading.Event) -> Iterator[bytes]:
    """A message that does not come before `event`."""
    event.wait(60)
    yield b""
