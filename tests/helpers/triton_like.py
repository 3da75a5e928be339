"""A server that does what a model repository for NVIDIA Triton says, with Triton's answers: the datatypes and shapes of
config.pbtxt, no properties, no parameters. It stands for Triton towards the edge; it says nothing of Triton itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from facemix.wire import DATATYPES
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.open_inference_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig


class _Servicer(GRPCInferenceServiceServicer):
    def __init__(self, folder: Path) -> None:
        self._config = text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())
        versions = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=int)
        self._sessions = {
            version: onnxruntime.InferenceSession(folder / version / "model.onnx") for version in versions
        }

    def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: grpc.ServicerContext
    ) -> pb.ModelMetadataResponse:
        self._require(request.name, request.version, context)
        response = pb.ModelMetadataResponse(name=request.name, versions=self._sessions, platform="onnxruntime_onnx")
        for ours, theirs in ((self._config.input, response.inputs), (self._config.output, response.outputs)):
            for tensor in ours:
                datatype = DataType.Name(tensor.data_type).removeprefix("TYPE_")
                theirs.add(name=tensor.name, datatype=datatype, shape=(-1, *tensor.dims))
        return response

    def ModelInfer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        self._require(request.model_name, request.model_version, context)
        feeds = {}
        for tensor, raw, described in zip(request.inputs, request.raw_input_contents, self._config.input, strict=True):
            assert (tensor.name, f"TYPE_{tensor.datatype}") == (described.name, DataType.Name(described.data_type))
            assert tensor.shape[0] <= self._config.max_batch_size
            feeds[tensor.name] = np.frombuffer(raw, DATATYPES[tensor.datatype]).reshape(tensor.shape)
        (output,) = self._config.output
        (values,) = self._sessions[request.model_version].run([output.name], feeds)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        response.outputs.add(name=output.name, datatype="FP32", shape=values.shape)
        response.raw_output_contents.append(values.tobytes())
        return response

    def _require(self, name: str, version: str, context: grpc.ServicerContext) -> None:
        if name != self._config.name or version not in self._sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown model")


@contextmanager
def triton_like(folder: Path) -> Iterator[str]:
    """Serve the model in `folder` of a repository; yields "host:port"."""
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    add_GRPCInferenceServiceServicer_to_server(_Servicer(folder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
