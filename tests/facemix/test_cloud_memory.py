"""Messages that nobody has asked for stay with their senders."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from cloud_process import Cloud
from cloud_server import INFER
from grpc_health.v1 import health_pb2

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


@pytest.mark.parametrize(
    ("method", "code"),
    [("/grpc.health.v1.Health/Watch", grpc.StatusCode.RESOURCE_EXHAUSTED), (INFER, grpc.StatusCode.INVALID_ARGUMENT)],
)
def test_refused_messages_leave_nothing_behind(cloud_file: Path, method: str, code: grpc.StatusCode) -> None:
    """Anybody may watch, without a token; as a request, it is a name of a model and then not what comes next."""
    data = health_pb2.HealthCheckRequest(service="x" * SIZE).SerializeToString() + b"\xff"
    with Cloud("--model", str(cloud_file), "--max-receiving", "2", "--threads", "1") as cloud:
        with grpc.insecure_channel(cloud.address, options=[("grpc.max_send_message_length", -1)]) as channel:
            before = psutil.Process(cloud.process.pid).memory_info().rss
            for call in [channel.unary_stream(method)(data) for _ in range(3 * CALLS)]:
                with pytest.raises(grpc.RpcError) as caught:
                    next(call)
                assert caught.value.code() == code
            grown = psutil.Process(cloud.process.pid).memory_info().rss - before
        assert grown < 3 * CALLS * SIZE / 3
