"""The edge's gRPC client: one array there, one array back. It knows nothing of keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray

from facemix.wire import DATATYPES, WireError, get_outputs, put_features
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub

from .errors import CloudError, CloudRefused, CloudReplyError, CloudUnreachable

__all__ = ["CloudClient", "Reply"]

Response = TypeVar("Response")

NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True)
class Reply:
    """An answer of the cloud.

    Attributes:
        outputs: [B, ...], float32.
        bytes_up, bytes_down: sizes of the two messages; HTTP/2 adds about a hundred bytes to each.
        cloud_seconds: computing time, by the cloud's own account.
        total_seconds: from the start of sending to the end of receiving, packing and unpacking included.
    """

    outputs: NDArray[np.float32]
    bytes_up: int
    bytes_down: int
    cloud_seconds: float
    total_seconds: float


class CloudClient:
    """A connection to a server of the Open Inference Protocol. Use it as a context manager, or `close` it.

    Args:
        target: "host:port".
        model: what the server calls the model.
        datatype: of the features on the wire, "FP32" or "FP16" (half the bytes).
        timeout: seconds to wait for an answer.
        max_message_bytes: largest answer to accept.

    Raises:
        CloudError: see there; the constructor asks for the model's metadata.
    """

    def __init__(
        self,
        target: str,
        model: str,
        *,
        datatype: str = "FP32",
        timeout: float = 30.0,
        max_message_bytes: int = 256 * 1024 * 1024,
    ) -> None:
        self._target, self._model, self._datatype, self._timeout = target, model, datatype, timeout
        limits = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("send", "receive")]
        self._channel = grpc.insecure_channel(target, options=limits)
        self._stub = GRPCInferenceServiceStub(self._channel)
        try:
            metadata = self._call(self._stub.ModelMetadata, pb.ModelMetadataRequest(name=model))
            if len(metadata.inputs) != 1 or len(metadata.outputs) != 1:
                raise CloudReplyError(
                    f"CloudClient: {model} at {target} must have one input and one output, "
                    f"got {len(metadata.inputs)} and {len(metadata.outputs)}"
                )
        except CloudError:
            self.close()
            raise
        self._output_shape = tuple(metadata.outputs[0].shape)[1:]

    def infer(self, features: NDArray[np.floating]) -> Reply:
        """Send `features` [B, ...] and return the answer [B, ...].

        Raises:
            CloudError: see there.
            WireError: if `features` holds a value that is not finite.
        """
        start = time.perf_counter()
        request = pb.ModelInferRequest(model_name=self._model)
        put_features(request, features.astype(DATATYPES[self._datatype]), self._datatype)
        response = self._call(self._stub.ModelInfer, request)
        try:
            # As many rows must come back as were sent.
            outputs = get_outputs(response, len(features), self._output_shape)
        except WireError as error:
            raise CloudReplyError(f"CloudClient: bad reply of {self._model} at {self._target}: {error}") from error
        return Reply(
            outputs,
            request.ByteSize(),
            response.ByteSize(),
            response.parameters[COMPUTE_NS].int64_param / 1e9 if COMPUTE_NS in response.parameters else 0.0,
            time.perf_counter() - start,
        )

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> CloudClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: Callable[..., Response], request: object) -> Response:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code in NO_ANSWER:
                raise CloudUnreachable(
                    f"CloudClient: no answer from {self._target} within {self._timeout:g} s ({code.name}): {details}"
                ) from error
            raise CloudRefused(f"CloudClient: {self._target} refused ({code.name}): {details}") from error
