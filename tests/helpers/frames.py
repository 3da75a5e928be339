"""What a gRPC client put on the wire: the bodies of its HTTP/2 streams, read from the bytes of its connections.

Only DATA frames are looked at, so that no header has to be decompressed. Bodies may end early, as the streams did.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from facemix.wire import open_inference_pb2 as pb
from google.protobuf.message import DecodeError

__all__ = ["Recorder"]

Connection: TypeAlias = tuple[int, int]  # which proxy, which of its connections

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER, DATA = 9, 0
MESSAGE_HEADER = 5  # gRPC's: compressed or not, and the length
PROBE = 64  # bytes of a tensor that no other tensor has by chance


class Recorder:
    """Call it with (connection number, bytes), as `Proxy.on_up` does; where there are several proxies, give each a
    `part`.
    """

    def __init__(self) -> None:
        self._connections: dict[Connection, bytearray] = defaultdict(bytearray)
        self._bodies: dict[tuple[Connection, int], bytearray] = defaultdict(bytearray)
        self._started: set[Connection] = set()
        self._parts = 0

    def part(self) -> Callable[[int, bytes], None]:
        """A recorder for one more proxy, whose records are with the others."""
        self._parts += 1
        return partial(self._record, self._parts)

    def __call__(self, number: int, data: bytes) -> None:
        self._record(0, number, data)

    def _record(self, part: int, connection: int, data: bytes) -> None:
        number = (part, connection)
        buffer = self._connections[number]
        buffer += data
        if number not in self._started:
            if len(buffer) < len(PREFACE):
                return
            del buffer[: len(PREFACE)]
            self._started.add(number)
        while len(buffer) >= HEADER and len(buffer) >= HEADER + (length := int.from_bytes(buffer[:3], "big")):
            if buffer[3] == DATA:
                stream = int.from_bytes(buffer[5:HEADER], "big")
                self._bodies[number, stream] += buffer[HEADER : HEADER + length]
            del buffer[: HEADER + length]

    @property
    def streams(self) -> int:
        """How many there were."""
        return len(self._bodies)

    def tensors(self) -> list[str]:
        """A digest of the first tensor of each whole inference request."""
        found = []
        for body in self._bodies.values():
            length = int.from_bytes(body[1:MESSAGE_HEADER], "big")
            if len(body) < MESSAGE_HEADER + length:
                continue
            try:
                message = pb.ModelInferRequest.FromString(bytes(body[MESSAGE_HEADER : MESSAGE_HEADER + length]))
            except DecodeError:
                continue
            if message.raw_input_contents:
                found.append(hashlib.sha256(message.raw_input_contents[0]).hexdigest())
        return found

    def assert_alike_or_different(self) -> None:
        """Two messages are the same, as far as they came, or have no part of a tensor in common."""
        large = {bytes(body) for body in self._bodies.values() if len(body) > 16 * PROBE}  # smaller: no features
        for body in large:
            middle = len(body) // 2
            for other in large:
                if body[middle : middle + PROBE] in other:
                    assert body.startswith(other) or other.startswith(body)
