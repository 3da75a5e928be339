"""A mixed request as messages of the protocol, and replies as arrays. The rows were shuffled before they are cut, so
that the order and the sizes of messages tell nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from facemix.wire import DATATYPES, HEADER_BYTES, WireError, get_outputs, packed_features, parse
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS, NETWORK

from .errors import CloudMismatch, CloudReplyError

__all__ = ["Reply", "cut", "pack", "reply_bytes", "row_bytes", "unpack"]

SCALE_BYTES = 4
OUTPUT_BYTES = 4  # at most
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Reply:
    """The answer to one message.

    Attributes:
        outputs: float32 [rows, ...].
        compute_ns: how long the cloud computed for the batch that held the message; None where it does not say, or
            says what no clock does.
        network: the fingerprint of the network that answered; None where the server does not say.
    """

    outputs: NDArray[np.float32]
    compute_ns: int | None
    network: str | None


def row_bytes(features_shape: tuple[int, ...], datatype: str) -> int:
    """Size of a row of features, and of its scales where it has some."""
    scales = features_shape[0] * SCALE_BYTES if datatype == "INT8" else 0
    return math.prod(features_shape) * DATATYPES[datatype].itemsize + scales


def cut(rows: int, size: int, message_bytes: int) -> list[slice]:
    """The rows of each message: as many of `size` as fit into `message_bytes`, at least one, as even as can be."""
    count = -(-rows // max(1, message_bytes // size))
    ends = [rows * (n + 1) // count for n in range(count)]
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def reply_bytes(outputs_shape: tuple[int, ...], rows: int) -> int:
    """Largest size of the reply to so many rows, or that gRPC can be told."""
    return min(OUTPUT_BYTES * rows * math.prod(outputs_shape) + HEADER_BYTES, LARGEST)


def pack(bundle: Any, payload: NDArray[Any], scales: NDArray[np.float32] | None, datatype: str) -> bytes:
    """A request for the model of `bundle`.

    Raises:
        WireError: if a value is not finite in `datatype`.
    """
    return packed_features(bundle.name, str(bundle.version), payload, datatype, scales)


def unpack(data: bytes, bundle: Any, rows: int) -> Reply:
    """The reply in `data` to `rows` rows.

    Raises:
        CloudReplyError: if it is no such reply.
        CloudMismatch: if another model than that of `bundle` gave it.
    """
    most = reply_bytes(bundle.outputs_shape, rows)
    if len(data) > most:
        raise CloudReplyError(
            f"Client: bad reply of {bundle.name}: to {rows} rows it must have {most} bytes at most, got {len(data)}"
        )
    try:
        response = parse(pb.ModelInferResponse, data)
        outputs = get_outputs(response, rows, bundle.outputs_shape)
    except (DecodeError, WireError) as error:
        raise CloudReplyError(f"Client: bad reply of {bundle.name}: {error}") from error
    parameters = response.parameters
    network = parameters[NETWORK].string_param if NETWORK in parameters else None
    for what, wanted, got in (
        ("model", bundle.name, response.model_name or bundle.name),
        ("version", str(bundle.version), response.model_version or str(bundle.version)),
        ("network", bundle.network, bundle.network if network is None else network),
    ):
        if got != wanted:
            raise CloudMismatch(f"Client: the {what} that answers must be {wanted}, got {got[:80]!r}")
    compute_ns = parameters[COMPUTE_NS].int64_param if COMPUTE_NS in parameters else None
    return Reply(outputs, compute_ns if compute_ns is not None and compute_ns >= 0 else None, network)
