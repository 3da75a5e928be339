"""The cloud's server in this process, with a model that a test can look into and hold up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
from facemix.cloud.model import CloudModel
from facemix.cloud.repository import Repository
from facemix.cloud.server import Server
from facemix.cloud.settings import Settings
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from numpy.typing import NDArray
from wire_requests import put_features

POISON = -666.5
INFER = "/inference.GRPCInferenceService/ModelInfer"


class Doubler:
    """A model of rows [4, 1, 1] that answers twice their values, [4].

    Attributes:
        batches: the rows of each batch, by the values of their first channel.
        gate: computing waits until it is set.
        started: set once something is computed.
    """

    def __init__(self, name: str = "middle", version: int = 1, network: str = "0" * 32) -> None:
        self.name, self.version, self.network = name, version, network
        self.input_shape, self.output_shape = (4, 1, 1), (4,)
        self.batches: list[list[float]] = []
        self.gate, self.started = threading.Event(), threading.Event()
        self.gate.set()

    def run(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        self.started.set()
        assert self.gate.wait(60)
        self.batches.append([float(value) for value in features[:, 0, 0, 0]])
        if (features == POISON).any():
            raise RuntimeError(f"it holds {POISON}")
        return features.reshape(len(features), -1) * 2


def rows(count: int, first: float = 1.0) -> NDArray[np.float32]:
    """[count, 4, 1, 1]: every value of a row is the same, and each row's is one more than the last one's."""
    values = np.arange(first, first + count, dtype=np.float32)
    return np.ascontiguousarray(np.broadcast_to(values[:, None, None, None], (count, 4, 1, 1)))


def message(features: NDArray[np.float32], name: str = "middle", version: str = "") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name, model_version=version)
    put_features(request, features, "FP32")
    return request


def answer(response: pb.ModelInferResponse) -> NDArray[np.float32]:
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)


async def calls(server: Server, count: int) -> None:
    """Until so many calls are under way."""
    while server.inference._calls != count:
        await asyncio.sleep(0.01)


async def waiting(server: Server, count: int) -> None:
    """Until so many requests wait for a batch."""
    while len(server._batcher._waiting) != count:
        await asyncio.sleep(0.01)


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call ends."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def repository(models: Sequence[Doubler], folder: Path) -> Repository:
    """One that has a file for each of `models`."""
    files = {folder / f"{index}.safetensors": model for index, model in enumerate(models)}
    for file in files:
        file.touch()
    return Repository([folder], lambda path: cast(CloudModel, files[path]))


@asynccontextmanager
async def serving(models: Repository, **settings: Any) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    """A server of `models`, and a channel to it; a test ends at once where it does not drain."""
    server = Server(Settings(model=(), **settings), models)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield server, channel
    finally:
        await server.stop()


def stub_of(channel: Any) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(channel)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario that must not take for ever."""
    asyncio.run(asyncio.wait_for(scenario, 60))
