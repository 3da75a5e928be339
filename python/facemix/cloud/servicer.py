"""The methods of the Open Inference Protocol. Tensor values are never logged."""

from __future__ import annotations

import grpc

import facemix
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import DATATYPES_PROPERTY, FEATURES, NETWORK, OUTPUTS
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceServicer
from facemix.wire.tensors import DATATYPES

from .inference import Inference
from .refusal import Refusal
from .repository import Repository

__all__ = ["Servicer"]


class Servicer(GRPCInferenceServiceServicer):
    """Answers questions about the server and its models; `Inference` answers ModelInfer."""

    def __init__(self, repository: Repository, inference: Inference) -> None:
        self._repository, self._inference = repository, inference

    @property
    def ready(self) -> bool:
        """Whether requests are taken, for at least one model."""
        return not self._inference.draining and bool(self._repository.models)

    async def ServerLive(
        self, request: pb.ServerLiveRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerLiveResponse:
        """The process is up."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: pb.ServerReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerReadyResponse:
        """It takes requests."""
        return pb.ServerReadyResponse(ready=self.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelReadyResponse:
        """Whether the named model is loaded, and requests are taken."""
        try:
            self._repository.find(request.name, request.version)
        except Refusal:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=self.ready)

    async def ServerMetadata(
        self, request: pb.ServerMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ServerMetadataResponse:
        """Name and version of this program."""
        return pb.ServerMetadataResponse(name="facemix", version=facemix.__version__)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.aio.ServicerContext
    ) -> pb.ModelMetadataResponse:
        """Names and shapes of a model's tensors, and its properties; `versions` are all those of its name."""
        try:
            model = self._repository.find(request.name, request.version)
        except Refusal as refusal:
            await context.abort(refusal.code, str(refusal))
            raise AssertionError("abort raises") from None
        versions = [str(version) for version in self._repository.versions(model.name)]
        response = pb.ModelMetadataResponse(name=model.name, versions=versions, platform="pytorch")
        response.properties[DATATYPES_PROPERTY] = ",".join(DATATYPES)
        response.properties[NETWORK] = model.network
        response.inputs.add(name=FEATURES, datatype="FP32", shape=(-1, *model.input_shape))
        response.outputs.add(name=OUTPUTS, datatype="FP32", shape=(-1, *model.output_shape))
        return response
