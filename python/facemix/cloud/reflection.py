"""Server reflection: tools such as grpcurl ask the server itself for its methods and messages."""

from __future__ import annotations

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from facemix.wire import open_inference_pb2

from .inference import SERVICE

__all__ = ["add_reflection"]


def add_reflection(server: grpc.aio.Server) -> None:
    """Have `server` describe its services."""
    # Our messages live in a pool of their own (see facemix/wire/generate.py), the others in the default one.
    pool = DescriptorPool()
    for module in (open_inference_pb2, health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server, pool)
