"""Clients that know nothing of facemix: what they need, the server tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from facemix.partition import partition
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"


class Stranger:
    """A client in the manner of grpcurl: services, methods and messages come from the server's reflection alone."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self.database)

    def methods(self, service: str) -> list[str]:
        return [method.name for method in self._pool.FindServiceByName(service).methods]

    def call(self, service: str, name: str, /, **fields: Any) -> Any:
        method = self._pool.FindServiceByName(service).FindMethodByName(name)
        assert not method.client_streaming
        request, response = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        call = self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request(**fields), timeout=30)


@pytest.fixture
def stranger(cloud: str) -> Iterator[Stranger]:
    with grpc.insecure_channel(cloud) as channel:
        yield Stranger(channel)


def test_services_and_methods(stranger: Stranger) -> None:
    assert sorted(stranger.database.get_services()) == [
        HEALTH, "grpc.reflection.v1alpha.ServerReflection", SERVICE,
    ]  # fmt: skip
    assert stranger.methods(SERVICE) == [
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    ]  # fmt: skip
    assert "Check" in stranger.methods(HEALTH)


def test_health(stranger: Stranger) -> None:
    for service in ("", SERVICE):
        assert stranger.call(HEALTH, "Check", service=service).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        stranger.call(HEALTH, "Check", service="other")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_inference(stranger: Stranger, network: torch.nn.Module) -> None:
    metadata = stranger.call(SERVICE, "ModelMetadata", name="middle")
    (taken,), (given,) = metadata.inputs, metadata.outputs
    features = torch.randn(3, *taken.shape[1:])
    response = stranger.call(
        SERVICE,
        "ModelInfer",
        model_name=metadata.name,
        model_version=metadata.versions[0],
        inputs=[{"name": taken.name, "datatype": taken.datatype, "shape": features.shape}],
        raw_input_contents=[features.numpy().tobytes()],
    )
    with torch.no_grad():
        expected = partition(network).cloud(features).numpy()
    outputs = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(3, *given.shape[1:])
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
    assert response.parameters["network"].string_param == metadata.properties["network"]


def test_tritonclient_of_asyncio(cloud: str, network: torch.nn.Module) -> None:
    import tritonclient.grpc.aio as triton

    async def scenario() -> None:
        async with triton.InferenceServerClient(cloud) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("middle", "1")
            metadata = await client.get_model_metadata("middle", as_json=True)
            assert metadata["versions"] == ["1"]
            features = torch.randn(2, 8, 8, 8)
            half = features.numpy().astype(np.float16)
            tensor = triton.InferInput("mixed_features", list(half.shape), "FP16")
            tensor.set_data_from_numpy(half)
            replies = await asyncio.gather(*(client.infer("middle", [tensor], request_id=str(n)) for n in range(5)))
            with torch.no_grad():
                expected = partition(network).cloud(features).numpy()
            for number, reply in enumerate(replies):
                outputs = reply.as_numpy("mixed_outputs")
                np.testing.assert_allclose(outputs, expected, rtol=1e-2, atol=1e-2 * np.abs(expected).max())
                assert reply.get_response().id == str(number)

    asyncio.run(scenario())
