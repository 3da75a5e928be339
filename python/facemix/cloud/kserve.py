"""The cloud on KServe's ModelServer, for a cluster that scales it.

A call comes in by KServe's servicer and goes through its data plane to its model; the rest is as in `server`: checks,
batches, limits, metrics. Where KServe's gRPC knows too little (BF16, versions, properties) or does too much (listening
on every address, unloading models for whoever asks), this file stands in. Of its HTTP only GET is left: probes,
metadata, metrics. It has no TLS and no tokens: those are for what stands in front of it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any, cast

import grpc
import prometheus_client
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from facemix.wire import WireError, parse
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import FEATURES, OUTPUTS

from . import servicer
from .access import RateLimit
from .batching import Batcher
from .health import Health
from .inference import SERVICE, Inference
from .metrics import Metrics
from .refusal import Refusal
from .repository import Repository
from .settings import Settings

# KServe parses the command line when it is imported, and would take ours for its own.
_argv, sys.argv = sys.argv, sys.argv[:1]
try:
    from kserve import Model, ModelServer, model_server
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as kserve_pb
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
    from kserve.protocol.grpc.servicer import InferenceServicer
finally:
    sys.argv = _argv

__all__ = ["serve_kserve"]

log = logging.getLogger(__name__)

FOR_THE_FRONT = ("tls_cert", "client_ca", "tokens")  # settings


class Received:
    """gRPC's context of a call whose message was received."""

    def __init__(self, context: grpc.aio.ServicerContext, message: bytes) -> None:
        self._context, self._message = context, message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> bytes:
        return self._message


class Answers(Inference):
    """ModelInfer, asked by KServe instead of by gRPC."""

    async def predict(self, call: Received) -> None:
        """Send the answer; a call that is refused is aborted."""
        await self._call(None, cast(grpc.aio.ServicerContext, call))


class Predictor(Model):
    """All versions of a model, as one of KServe's, which knows no versions."""

    answers: Answers  # from when the event loop runs

    def __init__(self, name: str, repository: Repository) -> None:
        super().__init__(name)
        self._repository = repository
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        shape = self._repository.find(self.name, "").input_shape
        return [{"name": FEATURES, "datatype": "FP32", "shape": [-1, *shape]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        shape = self._repository.find(self.name, "").output_shape
        return [{"name": OUTPUTS, "datatype": "FP32", "shape": [-1, *shape]}]

    async def predict(self, payload: Received, headers: Mapping[str, str] | None = None) -> None:
        await self.answers.predict(payload)


class Servicer(InferenceServicer):
    """KServe's servicer, with our answers in KServe's messages. What those do not know passes through them."""

    def __init__(self, server: ModelServer, repository: Repository, answers: Answers) -> None:
        super().__init__(server.dataplane, server.model_repository_extension)
        self._repository, self._answers, self._ours = repository, answers, servicer.Servicer(repository, answers)

    async def ModelReady(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        ours = await self._ours.ModelReady(request, context)
        return kserve_pb.ModelReadyResponse.FromString(ours.SerializeToString())

    async def ModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        ours = await self._ours.ModelMetadata(request, context)
        return kserve_pb.ModelMetadataResponse.FromString(ours.SerializeToString())

    async def infer(self, _: object, context: grpc.aio.ServicerContext) -> None:
        """ModelInfer, on bytes, and sent by us (see `Inference`): KServe's own unpacks a message whatever it holds, and
        then knows no BF16, and makes lists of what does not come as raw contents.
        """
        message = await context.read()
        call = Received(context, message)
        try:
            request = parse(pb.ModelInferRequest, b"" if message is grpc.aio.EOF else message)
            self._repository.find(request.model_name, request.model_version)
        except (DecodeError, WireError, Refusal):
            return await self._answers.predict(call)  # which refuses it for the same reason
        await self._data_plane.infer(model_name=request.model_name, request=call)

    async def RepositoryModelLoad(self, request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "models are loaded when the server starts")

    RepositoryModelUnload = RepositoryModelLoad


class GetOnly:
    """Middleware that refuses every HTTP request but GET: no features as JSON, no unloading of models."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "GET":
            await PlainTextResponse("features are taken over gRPC only\n", 405)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Server(ModelServer):
    """KServe's ModelServer with its HTTP, and our gRPC server, where `settings` says."""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        super().__init__(http_port=settings.metrics_port or 0, enable_grpc=False, enable_latency_logging=False)
        self._settings, self._repository = settings, repository

    async def _serve(self) -> None:
        """Listen; `start` has built the HTTP server by now, which listens nowhere yet."""
        try:
            await self._listen()
        except OSError:
            for http in self.servers:
                http.close()
            raise
        self._rest_server.config.host = self._settings.metrics_host
        async with asyncio.TaskGroup() as group:
            serving = [group.create_task(http) for http in self.servers]
            telling = group.create_task(self._tell())
            await self._rpc.wait_for_termination()
            telling.cancel()
            for http in serving:  # HTTP ends first, but for a signal that came before it caught them
                http.cancel()

    async def _tell(self) -> None:
        """Log where HTTP listens, once it does."""
        uvicorn = self._rest_server._server
        while not uvicorn.started:
            await asyncio.sleep(0.05)
        ports = [socket.getsockname()[1] for server in uvicorn.servers for socket in server.sockets]
        log.info(
            "serving",
            extra={
                "address": self._address,
                "tls": False,
                "metrics": f"{self._settings.metrics_host}:{ports[0]}" if ports else None,  # it may have been stopped
                "models": [f"{model.name} {model.version}" for model in self._repository.models],
            },
        )

    async def _listen(self) -> None:
        settings, metrics = self._settings, Metrics(prometheus_client.REGISTRY)
        batcher = Batcher(settings.max_batch, settings.max_delay_ms / 1000, settings.queue_bytes, metrics)
        answers = Answers(self._repository, batcher, RateLimit(settings.rate), metrics, settings.max_receiving)
        predictors = self.registered_models.get_models()
        for predictor in predictors.values():
            predictor.answers = answers
        metrics.models(self._repository.models)

        self._rpc = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # Otherwise a second server on the same port would start, and share its requests at random.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=settings.max_receiving,  # KServe's servicer is called with whole messages
        )
        ours = Servicer(self, self._repository, answers)
        add_GRPCInferenceServiceServicer_to_server(ours, self._rpc)
        infer = grpc.stream_stream_rpc_method_handler(ours.infer)
        self._rpc.add_registered_method_handlers(SERVICE, {"ModelInfer": infer})  # in the place of KServe's
        self._health = Health(SERVICE)
        add_HealthServicer_to_server(self._health, self._rpc)
        self._health.set(True)
        address = f"{settings.bracketed_host}:{settings.port}"
        try:
            bound = self._rpc.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"serve: {address} must be a free address of this machine") from error
        await self._rpc.start()
        self._address = f"{settings.bracketed_host}:{bound}"
        print(f"facemix cloud: serving {', '.join(predictors)} on {self._address}", flush=True)

    def stop(self, sig: int) -> None:
        """Take no more calls, and end when those that run have ended, or their time is over."""
        self._stopping = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        self._health.set(False)
        self._health.end()
        await self._rpc.stop(self._settings.drain_seconds)


def serve_kserve(settings: Settings, repository: Repository) -> None:
    """Serve the models that `repository` holds now on KServe's ModelServer, until SIGTERM or SIGINT. Prints one line
    when it listens.

    `settings` mean what they mean to `server.serve`, but for these: `metrics_port` is KServe's HTTP, which listens on a
    free port where there is none; calls beyond `max_receiving` are refused; files are not looked at again.

    Raises:
        ValueError: if `settings` ask for TLS or tokens.
        OSError: if the address is not to be had.
    """
    for name in FOR_THE_FRONT:
        if getattr(settings, name) is not None:
            raise ValueError(
                f"serve: --{name.replace('_', '-')} must not be given with --engine kserve: it is for what stands in "
                "front of KServe"
            )
    for name in ("kserve", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)  # else a line or more for each call
    model_server.app.add_middleware(GetOnly)
    names = dict.fromkeys(model.name for model in repository.models)
    Server(settings, repository).start([Predictor(name, repository) for name in names])
