"""A server with just enough HTTP/2 to refuse calls that it has not looked at: what gRPC sends again by itself."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading

from google.protobuf.message import Message

PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS_200 = b"\x88"  # HPACK: entry 8 of its table
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"  # its entry 31, and a text of 16 bytes
GRPC_STATUS_0 = b"\x00\x0bgrpc-status\x010"
LARGE = 1000  # bytes; what is smaller asks for metadata


class RefusingServer:
    """Answers small requests with `metadata`, and refuses large ones.

    Attributes:
        refused: SHA-256 of the large ones.
    """

    def __init__(self, metadata: Message) -> None:
        body = metadata.SerializeToString()
        self._metadata, self.refused = b"\0" + struct.pack(">I", len(body)) + body, list[bytes]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        bodies: dict[int, bytes] = {}
        with connection, connection.makefile("rb") as source:
            source.read(PREFACE)
            connection.sendall(_frame(SETTINGS, 0, 0))
            while header := source.read(9):
                kind, flags, stream = header[3], header[4], int.from_bytes(header[5:])
                payload = source.read(int.from_bytes(header[:3]))
                if kind in (SETTINGS, PING) and not flags & ACK:
                    connection.sendall(_frame(kind, ACK, 0, payload if kind == PING else b""))
                elif kind == DATA:
                    bodies[stream] = bodies.get(stream, b"") + payload
                    if flags & END_STREAM:
                        connection.sendall(self._reply(stream, bodies.pop(stream)))

    def _reply(self, stream: int, body: bytes) -> bytes:
        if len(body) > LARGE:
            self.refused.append(hashlib.sha256(body).digest())
            return _frame(GOAWAY, 0, 0, struct.pack(">II", stream - 2, 0))  # calls until the one before were served
        return (
            _frame(HEADERS, END_HEADERS, stream, STATUS_200 + CONTENT_TYPE)
            + _frame(DATA, 0, stream, self._metadata)
            + _frame(HEADERS, END_HEADERS | END_STREAM, stream, GRPC_STATUS_0)
        )


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload
