"""Strangers' messages: refused by name, or answered rightly; never more, and no value of a tensor in any text.

Bounded and the same in every run. For hours instead: ``pytest tests/facemix/test_fuzz.py --hypothesis-profile=long``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from exact import GROUP, exact_network, export, pictures
from facemix.cloud.model import CloudModel
from facemix.edge import Client, CloudError
from facemix.wire import WireError, get_features, get_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import FEATURES, NETWORK, OUTPUTS
from hostile import CANARIES, decoded, mangled_bytes, replies, requests
from hypothesis import given, settings
from hypothesis import strategies as st

from facemix_ops.edge import Bundle, EdgeModel

SHAPE, OUT = (8, 8, 8), (64,)
TOLERANCE = {"FP32": 1e-4, "FP16": 2e-3, "BF16": 2e-2}  # of the largest output: what the reply's datatype rounds
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
LONGEST_TEXT = 600


def assert_silent(text: str) -> None:
    """`text` quotes no value of a tensor, and is short enough to quote none unseen."""
    assert len(text) < LONGEST_TEXT
    assert not any(value in text for value in CANARIES), text


def outcome(call: Callable[[], Any], error: type[Exception]) -> tuple[Any, Any]:
    """What `call` returns, and None; or None, and the error of this type that it raises."""
    try:
        return call(), None
    except error as raised:
        return None, raised


def test_a_canary_is_seen() -> None:
    values = [np.frombuffer(b"PIXL", dtype) for dtype in ("<f4", "<f2", "i1")]
    for text in [repr(b"PIXL"), str(values[0][0]), *map(str, values), *(str(array.tolist()) for array in values)]:
        with pytest.raises(AssertionError):
            assert_silent(text)


@given(requests("middle", SHAPE))
def test_features_are_what_they_must_be_or_refused(message: pb.ModelInferRequest) -> None:
    result, refusal = outcome(lambda: get_features(message, SHAPE), WireError)
    if refusal:
        assert_silent(str(refusal))
    else:
        features, datatype = result
        assert features.dtype == np.float32
        assert features.shape[1:] == SHAPE
        assert len(features) >= 1
        assert np.isfinite(features).all()
        assert datatype in ("FP32", "FP16", "BF16", "INT8")
        np.testing.assert_allclose(features, decoded(message), rtol=1e-6)


@given(requests("middle", SHAPE, changes=0))
def test_untouched_features_are_accepted(message: pb.ModelInferRequest) -> None:
    np.testing.assert_allclose(get_features(message, SHAPE)[0], decoded(message), rtol=1e-6)


@given(replies(pb.ModelInferResponse(), 3, OUT))
def test_outputs_are_what_they_must_be_or_refused(message: pb.ModelInferResponse) -> None:
    outputs, refusal = outcome(lambda: get_outputs(message, 3, OUT), WireError)
    if refusal:
        assert_silent(str(refusal))
    else:
        assert outputs.dtype == np.float32
        assert outputs.shape == (3, *OUT)
        assert np.isfinite(outputs).all()


@dataclass(frozen=True)
class Cloud:
    """A cloud process that was given strangers' bytes, and its model in this process."""

    address: str
    model: CloudModel
    log: Path
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("fuzz")
    file, _ = export(folder, exact_network(1), "middle")
    log = folder / "log"
    command = [sys.executable, "-m", "facemix", "serve", "--model", str(file), "--threads", "1"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        yield Cloud(process.stdout.readline().split()[-1], CloudModel(file), log, process)
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def channel(cloud: Cloud) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(cloud.address) as channel:
        yield channel


def call(channel: grpc.Channel, method: str, data: bytes) -> bytes | None:
    """The bytes of the reply to a call with these bytes, or None where it was refused as documented."""
    rpc = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    reply, refusal = outcome(lambda: rpc(data, timeout=60), grpc.RpcError)
    if refusal:
        assert refusal.code() in REFUSALS, (refusal.code(), refusal.details())
        assert_silent(refusal.details())
    return reply


def infer(channel: grpc.Channel, data: bytes) -> pb.ModelInferResponse | None:
    """The answer to a request of these bytes, or None where it was refused as documented."""
    reply = call(channel, "ModelInfer", data)
    return None if reply is None else pb.ModelInferResponse.FromString(reply)


def assert_right(reply: pb.ModelInferResponse, request: pb.ModelInferRequest, model: CloudModel) -> None:
    """`reply` is what the model makes of the features of `request`."""
    expected = model.run(decoded(request).astype(np.float32))
    actual = get_outputs(reply, len(expected), OUT)
    tolerance = TOLERANCE[reply.outputs[0].datatype] * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)
    assert reply.id == request.id
    assert reply.parameters[NETWORK].string_param == model.network


@given(message=requests("middle", SHAPE))
def test_the_cloud_refuses_or_answers_rightly(
    cloud: Cloud, channel: grpc.Channel, message: pb.ModelInferRequest
) -> None:
    reply = infer(channel, message.SerializeToString())
    if reply is not None:
        assert_right(reply, message, cloud.model)


@given(data=st.one_of(st.binary(max_size=300), requests("middle", SHAPE, changes=1).flatmap(mangled_bytes)))
def test_the_cloud_survives_any_bytes(cloud: Cloud, channel: grpc.Channel, data: bytes) -> None:
    reply = infer(channel, data)
    if reply is not None:
        assert_right(reply, pb.ModelInferRequest.FromString(data), cloud.model)


METHODS = ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")


@given(method=st.sampled_from(METHODS), data=st.binary(max_size=60))
def test_other_methods_survive_any_bytes(cloud: Cloud, channel: grpc.Channel, method: str, data: bytes) -> None:
    call(channel, method, data)


@given(message=requests("middle", SHAPE, changes=0))
def test_afterwards_it_is_well_and_its_log_is_clean(
    cloud: Cloud, channel: grpc.Channel, message: pb.ModelInferRequest
) -> None:
    reply = infer(channel, message.SerializeToString())
    if reply is None:  # a canary's outputs may be too large for FP16
        assert message.inputs[0].datatype == "FP16"
    else:
        assert_right(reply, message, cloud.model)
    assert cloud.process.poll() is None
    for line in map(json.loads, cloud.log.read_text().splitlines()):  # JSON: no traceback
        if line["event"] != "serving":  # that one has a port, any number
            assert_silent(str({key: value for key, value in line.items() if key != "time"}))


class Liar:
    """A server of the protocol that answers with whatever bytes it was told to."""

    def __init__(self) -> None:
        self.metadata = self.infer = b""
        handlers = {
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(lambda *_: self.metadata),
            "ModelInfer": grpc.unary_unary_rpc_method_handler(lambda *_: self.infer),
        }
        self._server = grpc.server(ThreadPoolExecutor(2))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        """Close all connections."""
        self._server.stop(0).wait(30)


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    liar = Liar()
    yield liar
    liar.stop()


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> EdgeModel:
    _, edge = export(tmp_path_factory.mktemp("liar"), exact_network(1), "middle")
    return EdgeModel.load(edge, threads=1)


def described(bundle: Bundle) -> pb.ModelMetadataResponse:
    """What an honest server says of the model of `bundle`."""
    metadata = pb.ModelMetadataResponse(name=bundle.name, versions=[str(bundle.version)], platform="pytorch")
    metadata.inputs.add(name=FEATURES, datatype="FP32", shape=(-1, *SHAPE))
    metadata.outputs.add(name=OUTPUTS, datatype="FP32", shape=(-1, *OUT))
    metadata.properties[NETWORK] = bundle.network
    return metadata


def answered(half: EdgeModel, liar: Liar) -> bool:
    """Whether a client takes what `liar` says for an answer; if not, it must raise a CloudError that quotes nothing."""
    with Client(half, liar.address, attempts=1, timeout=20) as client:
        answer, error = outcome(lambda: client.classify(pictures(GROUP)), CloudError)
    if error:
        assert_silent(str(error))
        return False
    assert answer.scores.shape == (GROUP, 6)
    assert np.isfinite(answer.scores).all()
    return True


@given(data=st.data())
@settings(max_examples=80)
def test_a_client_takes_no_reply_that_is_none(half: EdgeModel, liar: Liar, data: st.DataObject) -> None:
    liar.metadata = described(half.bundle).SerializeToString()
    honest = pb.ModelInferResponse(model_name="middle", model_version="1")
    honest.parameters[NETWORK].string_param = half.bundle.network
    reply = data.draw(replies(honest, GROUP, OUT))
    liar.infer = data.draw(st.one_of(st.just(reply.SerializeToString()), mangled_bytes(reply), st.binary(max_size=99)))
    if answered(half, liar):
        taken = pb.ModelInferResponse.FromString(liar.infer)
        assert taken.model_name in ("", "middle")
        assert taken.model_version in ("", "1")
        get_outputs(taken, GROUP, OUT)


@given(data=st.data())
@settings(max_examples=60)
def test_a_client_takes_no_description_that_is_none(half: EdgeModel, liar: Liar, data: st.DataObject) -> None:
    honest = described(half.bundle)
    liar.metadata = data.draw(st.one_of(mangled_bytes(honest), st.binary(max_size=99)))
    liar.infer = b""
    assert not answered(half, liar)
