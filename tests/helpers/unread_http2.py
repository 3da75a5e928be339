"""A client with just enough HTTP/2 to ask and to take no answer: its flow-control windows are 0, so none can leave."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

HEADERS, DATA, SETTINGS, PING = 1, 0, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
EMPTY = bytes(5)  # a message without bytes


class Unread:
    """Calls on one connection to `address`; leaving the context ends them."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._connection, self._stream, self._host = socket.create_connection((host, int(port))), -1, host
        self._connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
        )
        threading.Thread(target=self._acknowledge, daemon=True).start()

    def call(self, method: str) -> None:
        """Call `method` with an empty message."""
        self._stream += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": self._host,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
        self._connection.sendall(
            _frame(HEADERS, END_HEADERS, self._stream, block) + _frame(DATA, END_STREAM, self._stream, EMPTY)
        )

    def _acknowledge(self) -> None:
        with suppress(OSError), self._connection.makefile("rb") as source:
            while header := source.read(9):
                kind, flags, payload = header[3], header[4], source.read(int.from_bytes(header[:3]))
                if kind in (SETTINGS, PING) and not flags & ACK:
                    self._connection.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))

    def __enter__(self) -> Unread:
        return self

    def __exit__(self, *unused: object) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
