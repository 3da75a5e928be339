"""What a status code of gRPC means here."""

from __future__ import annotations

import math

import grpc

from facemix.wire.names import RETRY_AFTER

from .errors import CloudDenied, CloudError, CloudOverloaded, CloudRefused, CloudTimeout, CloudUnreachable

__all__ = ["TRANSIENT", "as_cloud_error"]

#: What may be better the next time.
TRANSIENT = (CloudUnreachable, CloudOverloaded, CloudTimeout)

LONGEST = 400  # what gRPC itself says of a certificate is longer than 200

# gRPC has no codes of their own for these.
TOO_LARGE = "message larger than max"
BAD_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
BAD_FILES = "Failed to create security handshaker"


def as_cloud_error(error: grpc.aio.AioRpcError, server: str) -> CloudError:
    """The error that stands for a call of `server` that failed."""
    code, details = error.code(), str(error.details())
    text = f"({code.name}): {details[:LONGEST]!r}"  # a stranger's words, which go to terminals
    match code:
        case grpc.StatusCode.UNAVAILABLE if any(words in details for words in BAD_CERTIFICATE):
            return CloudDenied(f"Client: the certificate of {server} must hold {text}")
        case grpc.StatusCode.UNAVAILABLE if BAD_FILES in details:
            return CloudDenied(f"Client: ca, certificate and key must be PEM that can be read {text}")
        case grpc.StatusCode.UNAVAILABLE:
            return CloudUnreachable(f"Client: no answer from {server} {text}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return CloudTimeout(f"Client: no answer from {server} in time {text}")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return CloudDenied(f"Client: {server} does not accept the credentials {text}")
        case grpc.StatusCode.RESOURCE_EXHAUSTED | grpc.StatusCode.ABORTED if TOO_LARGE not in details:
            return CloudOverloaded(f"Client: {server} is overloaded {text}", _retry_after(error))
    return CloudRefused(f"Client: {server} refused {text}")


def _retry_after(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds; gRPC says that what is negative or no number means never."""
    for key, value in error.trailing_metadata() or ():
        if key == RETRY_AFTER:
            text = value if isinstance(value, str) else ""
            return int(text) / 1000 if text.isascii() and text.isdecimal() else math.inf
    return None
