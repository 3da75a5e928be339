"""The cloud on KServe's ModelServer as a real process, asked by tritonclient and by our own wire."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import ml_dtypes
import numpy as np
import psutil
import pytest
import torch
import tritonclient.grpc as triton
from cloud_process import Cloud
from facemix.cloud.model import CloudModel
from facemix.edge import Client
from facemix.storage import load_tensors, save_tensors
from facemix.wire import DATATYPES, get_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.features import as_float32
from facemix.wire.names import COMPUTE_NS, FEATURES, NETWORK, OUTPUTS, RETRY_AFTER, SCALES
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import nn
from wire_requests import put_features

from facemix_ops.edge import EdgeModel

from .test_edge import Watched, exported, in_one_piece

PICTURES = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 1), np.uint8)
SERVER = Path(__file__).parents[1] / "helpers" / "kserve_server.py"
SHAPE = (8, 8, 8)
#: What an answer may lose: a float32 that is added in another order, and the rounding to the datatype of the answer.
TOLERANCES = {"FP32": 1e-5, "FP16": 2**-10, "BF16": 2**-7, "INT8": 1e-5}


MODELS = (("middle", 1), ("middle", 9), ("middle", 10), ("waiting", 1), ("failing", 1))


class Ports(NamedTuple):
    grpc: str
    http: str
    go_on: Path
    process: psutil.Process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def ports(cloud_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder, http = tmp_path_factory.mktemp("models"), free_port()
    tensors, config = load_tensors(cloud_file)
    for name, version in MODELS:
        save_tensors(folder / f"{name}-{version}.safetensors", tensors, {**config, "name": name, "version": version})
    go_on = folder / "go-on"
    options = {
        "engine": "kserve",
        "model": folder,
        "metrics-port": http,
        "max-message-mib": 1,
        "queue-mib": 1,
        "threads": 1,
        "log-level": "error",
    }
    command = [sys.executable, SERVER, go_on, "serve", *(f"--{name}={value}" for name, value in options.items())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("facemix cloud: serving failing, middle, waiting on 127.0.0.1:")
            yield Ports(line.split()[-1], f"http://127.0.0.1:{http}", go_on, psutil.Process(process.pid))
        finally:
            process.terminate()
            out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")


@pytest.fixture
def stub(ports: Ports) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(ports.grpc) as channel:
        yield GRPCInferenceServiceStub(channel)


def features(datatype: str, rows: int = 3) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Features as they are sent, their scales, and what they stand for."""
    values = torch.randn(rows, *SHAPE)
    if datatype == "INT8":
        scales = (values.abs().amax((2, 3)) / 127).numpy()
        sent = np.rint(values.numpy() / scales[:, :, None, None]).astype(np.int8)
        return sent, scales, sent * scales[:, :, None, None]
    if datatype == "BF16":
        sent = values.bfloat16().view(torch.uint16).numpy()
        return sent, None, as_float32(sent)
    sent = values.numpy().astype(DATATYPES[datatype])
    return sent, None, sent.astype(np.float32)


def request(datatype: str = "FP32", rows: int = 3, **fields: Any) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(**{"model_name": "middle", "id": "7", **fields})
    sent, scales, _ = features(datatype, rows)
    put_features(message, sent, datatype, scales)
    return message


def assert_answers(outputs: np.ndarray, cloud_file: Path, meant: np.ndarray, datatype: str) -> None:
    expected = CloudModel(cloud_file).run(meant.copy())
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=TOLERANCES[datatype] * np.abs(expected).max())


@pytest.mark.parametrize("datatype", DATATYPES)
def test_our_wire(datatype: str, stub: GRPCInferenceServiceStub, cloud_file: Path) -> None:
    sent, scales, meant = features(datatype)
    message = pb.ModelInferRequest(model_name="middle", id="7")
    put_features(message, sent, datatype, scales)
    response = stub.ModelInfer(message)
    assert (response.model_name, response.model_version, response.id) == ("middle", "10", "7")
    assert response.outputs[0].datatype == ("FP32" if datatype == "INT8" else datatype)
    assert response.parameters[COMPUTE_NS].int64_param > 0
    assert response.parameters[NETWORK].string_param == CloudModel(cloud_file).network
    assert_answers(get_outputs(response, 3, (64,)), cloud_file, meant, datatype)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_tritonclient(datatype: str, ports: Ports, cloud_file: Path) -> None:
    sent, scales, meant = features(datatype)
    tensors = [triton.InferInput(FEATURES, list(sent.shape), datatype)]
    tensors[0].set_data_from_numpy(sent.view(ml_dtypes.bfloat16) if datatype == "BF16" else sent)
    if scales is not None:
        tensors.append(triton.InferInput(SCALES, list(scales.shape), "FP32"))
        tensors[1].set_data_from_numpy(scales)
    with triton.InferenceServerClient(ports.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("middle", "1")
        result = client.infer("middle", tensors, outputs=[triton.InferRequestedOutput(OUTPUTS)])
    assert_answers(result.as_numpy(OUTPUTS).astype(np.float32), cloud_file, meant, datatype)


@pytest.mark.parametrize("wire_dtype", ["float32", "float16", "bfloat16"])
def test_the_edge_does_not_change(wire_dtype: str, ports: Ports, network: nn.Module, tmp_path: Path) -> None:
    half = Watched(EdgeModel.load(exported(network, tmp_path, version=9)))
    with Client(half, ports.grpc, request_groups=2, message_bytes=10_000, wire_dtype=wire_dtype) as client:
        answer = client.classify(PICTURES)
    assert answer.cost.messages > 2
    expected = in_one_piece(network, half)
    torch.testing.assert_close(
        torch.from_numpy(answer.scores),
        torch.stack([expected[p.tobytes()] for p in PICTURES]),
        rtol=0,
        atol={"float32": 1e-3, "float16": 2e-2, "bfloat16": 0.1}[wire_dtype],
    )


def test_health_and_metadata(stub: GRPCInferenceServiceStub, ports: Ports, cloud_file: Path) -> None:
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "kserve"
    assert stub.ModelReady(pb.ModelReadyRequest(name="middle")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="middle", version="2")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="middle"))
    assert (metadata.name, list(metadata.versions)) == ("middle", ["1", "9", "10"])
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [(FEATURES, "FP32", [-1, *SHAPE])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [(OUTPUTS, "FP32", [-1, 64])]
    assert metadata.properties == {"datatypes": "FP32,FP16,BF16,INT8", "network": CloudModel(cloud_file).network}
    with grpc.insecure_channel(ports.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert check.status == health_pb2.HealthCheckResponse.SERVING


def test_http_is_for_probes(ports: Ports) -> None:
    def get(path: str) -> bytes:
        with urllib.request.urlopen(ports.http + path, timeout=30) as response:
            return response.read()

    assert get("/v2/health/ready") == b'{"ready":true}'
    metrics = get("/metrics")
    assert b"request_predict_seconds_count" in metrics  # KServe's
    assert b"facemix_queue_bytes 0.0" in metrics  # and ours
    for path in ("/v2/models/middle/infer", "/v1/models/middle:predict", "/v2/repository/models/middle/unload"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(ports.http + path, data=b"{}", timeout=30)
        assert caught.value.code == 405
    assert get("/v2/models/middle/ready").startswith(b'{"name":"middle","ready":true')


def with_changes(change: str) -> pb.ModelInferRequest:
    message = request()
    if change == "shape":
        message.inputs[0].shape[1] = 9
    elif change == "nan":
        values = np.full((3, *SHAPE), np.nan, np.float32)
        message.raw_input_contents[0] = values.tobytes()
    elif change == "output":
        message.outputs.add(name="scores")
    elif change == "numbers":
        del message.raw_input_contents[:]
        message.inputs[0].contents.fp32_contents.extend([0.0] * 3 * 512)
    return message


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (request(model_name="scores"), "NOT_FOUND", "got 'scores' version ''"),
        (request(model_version="8"), "NOT_FOUND", "got 'middle' version '8'"),
        (pb.ModelInferRequest(model_name="middle"), "INVALID_ARGUMENT", "inputs must be mixed_features, got 0"),
        (with_changes("shape"), "INVALID_ARGUMENT", "must have shape [-1, 8, 8, 8], got [3, 9, 8, 8]"),
        (with_changes("nan"), "INVALID_ARGUMENT", "must be finite, got 1536 values that are not"),
        (with_changes("output"), "INVALID_ARGUMENT", "outputs must be 'mixed_outputs', got 'scores'"),
        (with_changes("numbers"), "INVALID_ARGUMENT", "raw_input_contents must have an entry for each of 1 inputs"),
        (request(rows=600), "RESOURCE_EXHAUSTED", "larger than max"),
    ],
)
def test_bad_input(stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest, code: str, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code().name == code
    assert text in caught.value.details()
    assert len(stub.ModelInfer(request()).outputs) == 1  # it goes on serving


def test_empty_tensors_take_no_memory(stub: GRPCInferenceServiceStub, ports: Ports) -> None:
    """Protobuf would make some hundred bytes of every two."""
    message = pb.ModelInferRequest(model_name="middle", inputs=[{}] * 400_000)
    before = ports.process.memory_info().rss
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "at most besides raw contents" in caught.value.details()
        assert ports.process.memory_info().rss - before < 10 * message.ByteSize()


def test_nobody_unloads_a_model(ports: Ports, stub: GRPCInferenceServiceStub) -> None:
    with triton.InferenceServerClient(ports.grpc) as client, pytest.raises(triton.InferenceServerException) as caught:
        client.unload_model("middle")
    assert "UNIMPLEMENTED" in caught.value.status()
    assert stub.ModelReady(pb.ModelReadyRequest(name="middle")).ready


def test_versions(stub: GRPCInferenceServiceStub) -> None:
    for asked, answered in (("", "10"), ("1", "1"), ("9", "9")):
        assert stub.ModelInfer(request(model_version=asked)).model_version == answered


def test_a_full_queue_says_when_to_try_again(stub: GRPCInferenceServiceStub, ports: Ports) -> None:
    # A row has 2 KB, the queue 1 MB.
    calls = [stub.ModelInfer.future(request(rows=300, model_name="waiting"), timeout=60) for _ in range(2)]
    while not any(call.done() for call in calls):
        time.sleep(0.01)
    refused, waiting = sorted(calls, key=lambda call: not call.done())
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(refused.trailing_metadata())[RETRY_AFTER]) > 0
    assert not waiting.done()
    ports.go_on.touch()
    assert list(waiting.result().outputs[0].shape) == [300, 64]


def test_the_text_of_an_unexpected_error_stays_inside(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request(model_name="failing"))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "inference failed: RuntimeError"


def test_where_it_listens(cloud_file: Path) -> None:
    """Its HTTP too, for which no port was given."""
    options = ("--engine", "kserve", "--metrics-host", "localhost", "--threads", "1")
    with Cloud("--model", str(cloud_file), *options) as cloud:
        told = cloud.until("serving")
        assert told["address"] == cloud.address
        with urllib.request.urlopen(f"http://{told['metrics']}/metrics", timeout=10) as reply:
            assert b"facemix_model{" in reply.read()
        with grpc.insecure_channel(cloud.address) as channel:
            assert GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=10).live


FRESH = """
import sys
from pathlib import Path
sys.argv = ["facemix", "--workers", "many", "--model", "x"]
import facemix.cli
from facemix.cloud.kserve import serve_kserve
from facemix.cloud.settings import Settings
print([name for name in sys.modules if name.startswith(("facemix_ops", "facemix.edge", "facemix.training"))])
print(sys.argv)
for options in ({"tls_cert": Path("c"), "tls_key": Path("k")}, {"tokens": Path("t")}):
    try:
        serve_kserve(Settings((), **options), None)
    except ValueError as error:
        print(error)
"""


def test_a_fresh_process() -> None:
    result = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    modules, argv, tls, tokens = result.stdout.splitlines()
    assert modules == "[]"  # nothing of the edge
    assert argv == "['facemix', '--workers', 'many', '--model', 'x']"  # and KServe has not read it
    assert tls.startswith("serve: --tls-cert must not be given with --engine kserve")
    assert tokens.startswith("serve: --tokens must not be given with --engine kserve")
