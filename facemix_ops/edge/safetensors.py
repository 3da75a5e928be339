"""Reads safetensors files: 8 bytes with the header's length, a JSON header, and the tensors' bytes one after another.

Every field is checked before it is used. The digest covers the whole file but for its own characters, so that no byte
of it changes unnoticed. It is no signature: whoever can rewrite the file can rewrite the digest with it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from math import prod
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from .errors import BundleError

DIGEST_KEY = "sha256"
NO_DIGEST = "0" * 64
LENGTH_BYTES = 8
MAX_HEADER = 1 << 20
MAX_DIMENSIONS = 8


class Contents(NamedTuple):
    """A file taken apart: its metadata, what its header says of each tensor, and where the tensors' bytes begin."""

    metadata: dict[str, str]
    entries: dict[str, Any]
    start: int


def parse_json(text: bytes | str, what: str) -> dict[str, Any]:
    """A JSON object without repeated names, NaN or infinities."""

    def unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name, value in pairs:
            if name in result:
                raise ValueError(f"the name {name[:40]!r} twice")
            result[name] = value
        return result

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what} must be JSON, got {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value


def parse(data: bytes) -> Contents:
    """Take a file's header apart; neither digest nor tensors are looked at yet.

    Raises:
        BundleError: if there is no such header.
    """
    if len(data) < LENGTH_BYTES:
        raise BundleError(f"the file must have at least {LENGTH_BYTES} bytes, got {len(data)}")
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    if not 2 <= length <= MAX_HEADER:
        raise BundleError(
            f"the header must have between 2 and {MAX_HEADER} bytes, got {length}: is that a safetensors file?"
        )
    if start > len(data):
        raise BundleError(f"the header must lie in the file of {len(data)} bytes, got one that ends at {start}")
    entries = parse_json(data[LENGTH_BYTES:start], "the header")
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise BundleError("the header must have metadata of strings, got none")
    return Contents(metadata, entries, start)


def digest(data: bytes, contents: Contents) -> str:
    """SHA-256 of the file with zeros for the digest's own characters, in hexadecimal.

    Raises:
        BundleError: if there are no such characters in the header.
    """
    claimed = contents.metadata.get(DIGEST_KEY, "")
    place = data.find(claimed.encode(errors="replace"), LENGTH_BYTES, contents.start)
    if len(claimed) != len(NO_DIGEST) or place < 0:
        raise BundleError(f"the metadata must have a {DIGEST_KEY} of {len(NO_DIGEST)} characters, got {len(claimed)}")
    total = hashlib.sha256(memoryview(data)[:place])
    total.update(NO_DIGEST.encode())
    total.update(memoryview(data)[place + len(NO_DIGEST) :])
    return total.hexdigest()


def seal(data: bytes) -> bytes:
    """The file with its digest written over `NO_DIGEST`, which its metadata must hold under `DIGEST_KEY`."""
    return data.replace(NO_DIGEST.encode(), digest(data, parse(data)).encode(), 1)


def check_digest(data: bytes, contents: Contents) -> None:
    """Refuse a file that is not to the bit what was written.

    Raises:
        BundleError: if it is not.
    """
    if digest(data, contents) != contents.metadata[DIGEST_KEY]:
        raise BundleError("the digest must be that of the file, got another: the file was damaged or altered")


def tensors(data: bytes, contents: Contents, pictures: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The tensors by name, read-only and not copied; they cover the rest of the file without overlap or gap.

    Args:
        pictures: names of those that are uint8, where they are there; all others are float32.

    Raises:
        BundleError: if they do not, or one has another dtype, or holds a value that is not finite.
    """
    result, end, size = {}, 0, len(data) - contents.start
    places = [(*_place(name, entry, size, name in pictures), name) for name, entry in contents.entries.items()]
    for first, last, shape, name in sorted(places):
        if first != end:
            raise BundleError(f"tensor {name[:40]!r} must begin at byte {end} of the tensors, got {first}")
        end = last
        dtype = "u1" if name in pictures else "<f4"
        values = np.frombuffer(data, dtype, prod(shape), contents.start + first).reshape(shape)
        if not np.isfinite(values).all():
            raise BundleError(f"tensor {name[:40]!r} must be finite, got {np.count_nonzero(~np.isfinite(values))} "
                              f"values that are not")  # fmt: skip
        # Kernels want aligned memory in the machine's byte order; nearly always it is that already.
        result[name] = np.require(values, None if name in pictures else np.float32, "A")
    if contents.start + end != len(data):
        raise BundleError(f"the file must end with its tensors at {contents.start + end} bytes, got {len(data)}")
    return result


def _place(name: str, entry: Any, size: int, picture: bool) -> tuple[int, int, tuple[int, ...]]:
    """First byte, byte after the last, and shape of a tensor."""
    what, dtype, element = f"tensor {name[:40]!r}", "U8" if picture else "F32", 1 if picture else 4
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{what} must have dtype, shape and data_offsets, got {repr(entry)[:80]}")
    if entry["dtype"] != dtype:
        raise BundleError(f"{what} must have dtype {dtype}, got {repr(entry['dtype'])[:40]}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape, size) or len(shape) > MAX_DIMENSIONS or 0 in shape:
        raise BundleError(f"{what} must have a shape of positive integers that fits the file, got {repr(shape)[:80]}")
    if not _naturals(offsets, size) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise BundleError(f"{what} must lie within {size} bytes, got offsets {repr(offsets)[:80]}")
    if offsets[1] - offsets[0] != element * prod(shape):
        raise BundleError(
            f"{what} must have {element * prod(shape)} bytes for its shape, got {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1], tuple(shape)


def _naturals(value: Any, most: int) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= most for item in value)
