"""The cloud as a real process: what it answers, what it refuses, what it does not hold."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from facemix.cli import main
from facemix.cloud.model import CloudModel
from facemix.partition import partition
from facemix.storage import load_tensors, save_tensors
from facemix.wire import DATATYPES, get_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS, FEATURES, OUTPUTS
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub
from wire_requests import put_features

SHAPE = (8, 8, 8)  # of a 32 x 32 image after the stem of a network of width 0.125


@pytest.fixture
def stub(cloud: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(cloud) as channel:
        yield GRPCInferenceServiceStub(channel)


def request(batch: int = 3, datatype: str = "FP32") -> tuple[pb.ModelInferRequest, torch.Tensor]:
    """A message, and the features that it holds once unpacked."""
    features = torch.randn(batch, *SHAPE)
    message = pb.ModelInferRequest(model_name="middle", id="7")
    if datatype == "INT8":
        scales = features.abs().amax((2, 3)) / 127  # for each row and channel
        integers = (features / scales[..., None, None]).round()
        put_features(message, integers.numpy().astype(np.int8), datatype, scales.numpy())
        return message, integers * scales[..., None, None]
    if datatype == "BF16":
        half = features.bfloat16()
        put_features(message, half.view(torch.uint16).numpy(), datatype)
        return message, half.float()
    put_features(message, features.numpy().astype(DATATYPES[datatype]), datatype)
    return message, features


def test_health_and_metadata(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "facemix"
    assert stub.ModelReady(pb.ModelReadyRequest(name="middle")).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="middle", version="1")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="middle", version="2")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="other")).ready
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="middle"))
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [(FEATURES, "FP32", [-1, *SHAPE])]
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.outputs] == [(OUTPUTS, "FP32", [-1, 64])]


@pytest.mark.parametrize(("datatype", "tolerance"), [("FP32", 1e-5), ("FP16", 1e-2), ("BF16", 1e-2), ("INT8", 1e-5)])
def test_infer_equals_the_middle(
    stub: GRPCInferenceServiceStub, network: torch.nn.Module, datatype: str, tolerance: float
) -> None:
    message, features = request(datatype=datatype)
    response = stub.ModelInfer(message)
    outputs = get_outputs(response, 3, (64,))
    with torch.no_grad():
        expected = partition(network).cloud(features).numpy()
    np.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    answered = "FP32" if datatype == "INT8" else datatype
    assert (response.id, response.model_name, response.outputs[0].datatype) == ("7", "middle", answered)
    assert response.parameters[COMPUTE_NS].int64_param > 0


def test_tritonclient_speaks_to_it(cloud: str, network: torch.nn.Module) -> None:
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(cloud)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("middle")
    features = torch.randn(2, *SHAPE)
    tensor = triton.InferInput(FEATURES, list(features.shape), "FP32")
    tensor.set_data_from_numpy(features.numpy())
    result = client.infer("middle", [tensor], outputs=[triton.InferRequestedOutput(OUTPUTS)])
    with torch.no_grad():
        expected = partition(network).cloud(features).numpy()
    np.testing.assert_allclose(result.as_numpy(OUTPUTS), expected, rtol=1e-4, atol=1e-5)
    client.close()


def changed(**fields: object) -> pb.ModelInferRequest:
    message, _ = request()
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def wrong_shape() -> pb.ModelInferRequest:
    message, _ = request()
    message.inputs[0].shape[1] = 9
    return message


def not_finite() -> pb.ModelInferRequest:
    message, features = request()
    features[1, 2, 3, 4] = float("nan")
    message.raw_input_contents[0] = features.numpy().tobytes()
    return message


def unknown_output() -> pb.ModelInferRequest:
    message, _ = request()
    message.outputs.add(name="scores")
    return message


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (
            changed(model_name="scores"),
            grpc.StatusCode.NOT_FOUND,
            "model must be 'middle' version 1, got 'scores'",
        ),
        (changed(model_version="9"), grpc.StatusCode.NOT_FOUND, "got 'middle' version '9'"),
        (
            pb.ModelInferRequest(model_name="middle"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "inputs must be mixed_features, got 0 tensors",
        ),
        (wrong_shape(), grpc.StatusCode.INVALID_ARGUMENT, "must have shape [-1, 8, 8, 8], got [3, 9, 8, 8]"),
        (not_finite(), grpc.StatusCode.INVALID_ARGUMENT, "must be finite, got 1 values that are not"),
        (unknown_output(), grpc.StatusCode.INVALID_ARGUMENT, "outputs must be 'mixed_outputs', got 'scores'"),
    ],
)
def test_bad_input(
    stub: GRPCInferenceServiceStub, message: pb.ModelInferRequest, code: grpc.StatusCode, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code() == code
    assert text in caught.value.details()
    assert len(stub.ModelInfer(request()[0]).outputs) == 1  # it goes on serving


def test_outputs_beyond_the_datatype_are_refused(stub: GRPCInferenceServiceStub) -> None:
    message = pb.ModelInferRequest(model_name="middle")
    put_features(message, np.full((1, *SHAPE), 6e4, np.float16), "FP16")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(message)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "mixed_outputs must be finite in FP16, got" in caught.value.details()


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "facemix", "serve", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_limits_the_message_says_one_line_and_stops_when_told(cloud_file: Path, number: signal.Signals) -> None:
    with start("--model", str(cloud_file), "--max-message-mib", "1", "--log-level", "error") as process:
        line = process.stdout.readline()
        assert line.startswith("facemix cloud: serving middle on 127.0.0.1:")
        with grpc.insecure_channel(line.split()[-1]) as channel, pytest.raises(grpc.RpcError) as caught:
            GRPCInferenceServiceStub(channel).ModelInfer(request(batch=600)[0])
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert (out, err) == ("", "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--model", "no-such-file"], "serve: --model must be a file or a folder, got no-such-file"),
        (["--model", "x", "--port", "70000"], "serve: --port must be between 0 and 65535, got 70000"),
        (["--model", "x", "--host", "0.0.0.0"], "serve: --host must be an address of loopback where there is no"),
    ],
)
def test_bad_arguments(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("facemix: error: ")
    assert text in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("option", "purpose"), [("--port", ""), ("--metrics-port", ", for metrics,")])
def test_an_address_in_use_is_refused(cloud: str, cloud_file: Path, option: str, purpose: str) -> None:
    with start("--model", str(cloud_file), option, cloud.rsplit(":", 1)[1]) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"serve: {cloud}{purpose} must be a free address of this machine" in err


def test_holds_only_the_middle(cloud_file: Path, network: torch.nn.Module) -> None:
    tensors, config = load_tensors(cloud_file)
    whole = network.state_dict()
    edge = {name for name in whole if name.split(".")[0] in ("conv1", "bn1", "fc")}
    assert set(tensors) == set(whole) - edge
    # Nor under another name, nor how many people the edge tells apart.
    # (The scale and the offset of an untrained batch norm are ones and zeros everywhere.)
    secret = {whole[name].numpy().tobytes() for name in edge if whole[name].unique().numel() > 1}
    assert not secret & {tensor.numpy().tobytes() for tensor in tensors.values()}
    assert "num_classes" not in config["options"]

    module = CloudModel(cloud_file).module
    layers = {name.rpartition(".")[0] for name in tensors}
    assert {name.rpartition(".")[0] for name in module.state_dict()} <= layers  # batch norms are folded away
    assert not any(isinstance(layer, torch.nn.Linear) for layer in module.modules())
    assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_imports_nothing_of_the_edge() -> None:
    # What `facemix serve` imports before it reads the model, and all that reading and serving need.
    code = (
        "import sys, facemix.cli, facemix.cloud.server, facemix.cloud.model\n"
        "print([n for n in sys.modules if n.startswith(('facemix_ops', 'facemix.edge', 'facemix.training'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_refuses_files_that_are_not_a_cloud_part(cloud_file: Path, tmp_path: Path) -> None:
    tensors, config = load_tensors(cloud_file)
    path = tmp_path / "wrong.safetensors"
    save_tensors(path, tensors, {**config, "kind": "something"})
    with pytest.raises(ValueError, match="must be of kind 'facemix-cloud-2', got 'something'"):
        CloudModel(path)
    save_tensors(path, tensors, {key: value for key, value in config.items() if key != "options"})
    with pytest.raises(ValueError, match=r"the config in .* must have name, .*, got no options"):
        CloudModel(path)
    save_tensors(path, {**tensors, "fc.bias": torch.zeros(6)}, config)
    with pytest.raises(ValueError, match=r"(?s)the weights in .* must suit its config, got .*fc\.bias"):
        CloudModel(path)
