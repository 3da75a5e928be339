"""A cloud in this process that is linear, so that no mixing shows in its answers, and fails as a test wants it to."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
from facemix.wire import get_features, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS, DATATYPES_PROPERTY, FEATURES, NETWORK, OUTPUTS
from facemix.wire.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from numpy.typing import NDArray

Context = grpc.aio.ServicerContext
#: What a call does before it is answered; its number counts from 0. It may abort, wait, or give the answer itself.
Behaviour = Callable[["FakeCloud", int, pb.ModelInferRequest, Context], Awaitable[pb.ModelInferResponse | None]]


async def well(cloud: FakeCloud, number: int, request: pb.ModelInferRequest, context: Context) -> None:
    """Nothing fails."""


async def hang(cloud: FakeCloud, number: int, request: pb.ModelInferRequest, context: Context) -> None:
    """Nobody answers."""
    await asyncio.sleep(3600)


def failing(code: grpc.StatusCode, times: int = 10**6, **trailing: str) -> Behaviour:
    """The first calls fail."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> None:
        if number < times:
            await context.abort(code, "as the test wants it", tuple(trailing.items()))

    return behave


class FakeCloud(GRPCInferenceServiceServicer):
    """Serves the matrix `middle` [features, outputs] as the middle of the network in `bundle`.

    Attributes:
        behave: see `Behaviour`.
        metadata: what it says of the model.
        requests: that came. messages: the same as bytes, those that are equal once. digests: of the rows of these.
        described: how often it was asked what it serves.
        headers: of the last call. remaining: seconds until its deadline.
        now, most: calls under way, and how many that were at most. ended: calls that the client gave up.
    """

    def __init__(self, bundle: Any, middle: NDArray[np.float64]) -> None:
        self.bundle, self.middle, self.behave = bundle, middle, well
        self.metadata = pb.ModelMetadataResponse(name=bundle.name, versions=[str(bundle.version)])
        self.metadata.inputs.add(name=FEATURES, datatype="FP32", shape=(-1, *bundle.features_shape))
        self.metadata.outputs.add(name=OUTPUTS, datatype="FP32", shape=(-1, middle.shape[1]))
        self.metadata.properties[DATATYPES_PROPERTY] = "FP32,FP16,BF16,INT8"
        self.metadata.properties[NETWORK] = bundle.network
        self.requests: list[pb.ModelInferRequest] = []
        self.messages: set[bytes] = set()
        self.digests: list[bytes] = []
        self.headers: dict[str, Any] = {}
        self.described = self.now = self.most = self.ended = 0
        self.remaining = 0.0

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        self.described += 1
        if (request.name, request.version) != (self.bundle.name, str(self.bundle.version)):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return self.metadata

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        number = len(self.requests)
        self.requests.append(request)
        if (message := request.SerializeToString(deterministic=True)) not in self.messages:
            self.messages.add(message)
            for row in np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(request.inputs[0].shape[0], -1):
                self.digests.append(hashlib.sha256(row).digest())
        self.headers, self.remaining = dict(context.invocation_metadata()), context.time_remaining()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self.behave(self, number, request, context) or self.answer(request)
        except asyncio.CancelledError:
            self.ended += 1
            raise
        finally:
            self.now -= 1

    def answer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The right one."""
        features, datatype = get_features(request, self.bundle.features_shape)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        response.parameters[COMPUTE_NS].int64_param = 1000
        response.parameters[NETWORK].string_param = self.bundle.network
        outputs = features.reshape(len(features), -1).astype(np.float64) @ self.middle
        put_outputs(response, outputs.astype(np.float32), datatype)
        return response


class Running:
    """A `FakeCloud` on a port of this machine, in a thread of its own; `stop` and `start` it at will."""

    def __init__(self, cloud: FakeCloud, credentials: grpc.ServerCredentials | None = None) -> None:
        self.cloud, self._credentials, self._port = cloud, credentials, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: Any = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, on the port that it had before."""
        self._run(self._start())

    def stop(self) -> None:
        """End calls under way and stop to listen."""
        self._run(self._server.stop(None))

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)])
        add_GRPCInferenceServiceServicer_to_server(self.cloud, self._server)
        where = f"127.0.0.1:{self._port}"
        if self._credentials is None:
            self._port = self._server.add_insecure_port(where)
        else:
            self._port = self._server.add_secure_port(where, self._credentials)
        await self._server.start()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


@contextmanager
def running(cloud: FakeCloud, credentials: grpc.ServerCredentials | None = None) -> Iterator[Running]:
    server = Running(cloud, credentials)
    try:
        yield server
    finally:
        server.close()
