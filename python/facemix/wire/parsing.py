"""Messages out of bytes that a stranger sent."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from .tensors import WireError

__all__ = ["HEADER_BYTES", "parse"]

M = TypeVar("M", bound=Message)

#: All that a message may hold besides raw contents: names, shapes, parameters. Ours hold some hundred bytes.
HEADER_BYTES = 16 * 1024
RAW = ("raw_input_contents", "raw_output_contents")

VARINT_BYTES = 10


def parse(kind: type[M], data: bytes) -> M:
    """The message of `kind` in `data`. Protobuf makes two bytes, an empty tensor, an object of some hundred; so it gets
    none that holds many.

    Raises:
        WireError: if there are more than HEADER_BYTES besides raw contents.
        DecodeError: if it is no such message.
    """
    if len(data) > HEADER_BYTES:
        _check_header(data, {field.number for field in kind.DESCRIPTOR.fields if field.name in RAW})
    return kind.FromString(data)


def _check_header(data: bytes, raw: set[int]) -> None:
    """Walk over the fields of `data`, and not into them, until they are too much. What we cannot follow is refused:
    protobuf could read it in another way.
    """
    place = contents = 0
    while place < len(data):
        tag, place = _varint(data, place)
        match tag & 7:
            case 0:  # a number
                _, place = _varint(data, place)
            case 1:
                place += 8
            case 2:  # text, bytes, a message
                size, place = _varint(data, place)
                place += size
                contents += size if tag >> 3 in raw else 0
            case 5:
                place += 4
            case _:
                raise DecodeError("a field must be of a kind that proto3 has")
        if place > len(data):
            raise DecodeError("a field must end where the message does, or before")
        if place - contents > HEADER_BYTES:
            raise WireError(f"a message must have {HEADER_BYTES} bytes at most besides raw contents, got more")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and where it ends; see `packing`."""
    number = 0
    for shift, byte in enumerate(data[place : place + VARINT_BYTES]):
        number |= (byte & 127) << 7 * shift
        if byte < 128:
            return number, place + shift + 1
    raise DecodeError("a number must end")
