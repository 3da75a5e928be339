"""Bytes over bare TCP, to see whether the link of benchmarks/link_proxy.py is what it says."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

NUMBER_BYTES = 8
READ_BYTES = 1 << 20


@contextlib.contextmanager
def raw_server() -> Iterator[str]:
    """A server on loopback that takes as many bytes as it is told to and gives as many; yields its "host:port"."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener,), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def transfers(address: str, sizes: list[tuple[int, int]]) -> list[float]:
    """Seconds that each of `sizes`, bytes up and bytes down, took, one after the other on one open connection."""
    host, _, port = address.rpartition(":")
    seconds = []
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _exchange(connection, 0, 1)  # now both ends are connected
        for up, down in sizes:
            start = time.perf_counter()
            _exchange(connection, up, down)
            seconds.append(time.perf_counter() - start)
    return seconds


def _exchange(connection: socket.socket, up: int, down: int) -> None:
    connection.sendall(b"".join(size.to_bytes(NUMBER_BYTES) for size in (up, down)) + bytes(up))
    _read(connection, down)


def _serve(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the listener closes
        while True:
            with listener.accept()[0] as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(EOFError):
                    while True:
                        up, down = (int.from_bytes(_read(connection, NUMBER_BYTES)) for _ in range(2))
                        _read(connection, up)
                        connection.sendall(bytes(down))


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        if not (part := connection.recv(min(READ_BYTES, size - len(data)))):
            raise EOFError
        data += part
    return bytes(data)
