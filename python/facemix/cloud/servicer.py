"""The methods of the Open Inference Protocol, for one model. Tensor values are never logged."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import grpc

import facemix
from facemix.wire import WireError, get_features, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS, DATATYPES_PROPERTY, FEATURES, NETWORK, OUTPUTS
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from facemix.wire.tensors import DATATYPES

from .model import CloudModel

__all__ = ["Servicer"]

log = logging.getLogger(__name__)
Context: TypeAlias = grpc.aio.ServicerContext


class Servicer(GRPCInferenceServiceServicer):
    """Answers for `model`. Inference runs in a thread of its own, so that the event loop answers other calls
    meanwhile.

    One thread, because PyTorch spreads a single batch over the cores itself.
    """

    def __init__(self, model: CloudModel) -> None:
        self._model = model
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="facemix-infer")

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        """The process is up."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        """The model is loaded: the server starts to listen only then."""
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        """Whether the named model is the one that is served."""
        return pb.ModelReadyResponse(ready=self._serves(request.name, request.version))

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        """Name and version of this program."""
        return pb.ServerMetadataResponse(name="facemix", version=facemix.__version__)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        """Names and shapes of the model's tensors."""
        await self._require(request.name, request.version, context)
        model = self._model
        response = pb.ModelMetadataResponse(name=model.name, versions=[str(model.version)], platform="pytorch")
        response.properties[DATATYPES_PROPERTY] = ",".join(DATATYPES)
        response.properties[NETWORK] = model.network
        response.inputs.add(name=FEATURES, datatype="FP32", shape=(-1, *model.input_shape))
        response.outputs.add(name=OUTPUTS, datatype="FP32", shape=(-1, *model.output_shape))
        return response

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Run the model on mixed features; the answer has their datatype, FP32 for INT8."""
        await self._require(request.model_name, request.model_version, context)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._infer, request)
        except WireError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:
            # The text of an unexpected error may quote values, so only its type goes out and into the log.
            log.error("inference failed: %s", type(error).__name__)
            await context.abort(grpc.StatusCode.INTERNAL, f"inference failed: {type(error).__name__}")
        raise AssertionError("abort raises")

    def _infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        features, datatype = get_features(request, self._model.input_shape)
        for wanted in request.outputs:
            if wanted.name != OUTPUTS:
                raise WireError(f"outputs must be {OUTPUTS!r}, got {wanted.name[:40]!r}")
        start = time.perf_counter_ns()
        outputs = self._model.run(features)
        elapsed = time.perf_counter_ns() - start
        version = str(self._model.version)
        response = pb.ModelInferResponse(model_name=self._model.name, model_version=version, id=request.id)
        response.parameters[COMPUTE_NS].int64_param = elapsed
        response.parameters[NETWORK].string_param = self._model.network
        put_outputs(response, outputs, datatype)
        return response

    def _serves(self, name: str, version: str) -> bool:
        return name == self._model.name and version in ("", str(self._model.version))

    async def _require(self, name: str, version: str, context: Context) -> None:
        if not self._serves(name, version):
            await context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"model must be {self._model.name!r} version {self._model.version}, "
                f"got {name[:40]!r} version {version[:40]!r}",
            )
