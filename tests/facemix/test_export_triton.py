"""The repository for NVIDIA Triton: its ONNX models against PyTorch, its config against them, and what can go wrong on
the way. Triton itself does not run here.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from facemix import export_triton as module
from facemix.cli import main
from facemix.cloud.model import CloudModel
from facemix.errors import FacemixError
from facemix.export import export_cloud
from facemix.export_onnx import OPSET, TOLERANCE, onnx_model
from facemix.export_triton import export_triton
from facemix.models import build
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

TRITON_TYPES = {
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.FLOAT16: "TYPE_FP16",
    onnx.TensorProto.INT8: "TYPE_INT8",
}


def cloud_part(path: Path, builder: str, pre: int, image_shape: tuple[int, int, int], **options: Any) -> CloudModel:
    options = {"num_classes": 6, "in_channels": image_shape[0], "activation": "prelu", "pre": pre, **options}
    network = build(builder, options)
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, *image_shape))
    export_cloud(path, network.eval(), builder, options, image_shape, name="middle", version=3, pre=pre)
    return CloudModel(path)


def config_of(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("builder", "pre", "image_shape", "options", "wire_dtype"),
    [
        ("resnet18", 1, (1, 32, 32), {"width": 0.125}, "float32"),
        ("resnet18", 1, (3, 37, 41), {"width": 0.125, "activation": "relu"}, "int8"),
        ("resnet18", 2, (3, 33, 35), {"width": 0.125}, "float16"),
        ("vgg16", 1, (3, 32, 32), {"width": 0.0625}, "int8"),
        ("vgg16", 2, (1, 50, 46), {"width": 0.0625, "activation": "relu"}, "float32"),
    ],
)
def test_the_repository_answers_as_the_cloud_does(
    builder: str, pre: int, image_shape: tuple[int, int, int], options: dict, wire_dtype: str, tmp_path: Path
) -> None:
    model = cloud_part(tmp_path / "cloud.safetensors", builder, pre, image_shape, **options)
    version = export_triton(model, str(tmp_path / "repo"), wire_dtype=wire_dtype)
    assert version == tmp_path / "repo/middle/3"
    assert files(tmp_path / "repo") == {"middle/config.pbtxt", "middle/3/model.onnx"}

    session = onnxruntime.InferenceSession(version / "model.onnx")
    custom = session.get_modelmeta().custom_metadata_map
    assert custom == {"name": "middle", "version": "3", "network": model.network}
    for rows in (1, 3, 11):
        if wire_dtype == "int8":
            values = np.random.default_rng(0).integers(-127, 128, (rows, *model.input_shape), np.int8)
            scales = np.random.default_rng(1).uniform(0, 0.02, values.shape[:2]).astype(np.float32)
            feeds = {"mixed_features": values, "mixed_scales": scales}
            features = values * scales[:, :, None, None]
        else:
            values = torch.randn(rows, *model.input_shape).numpy().astype(wire_dtype)
            feeds, features = {"mixed_features": values}, values.astype(np.float32)
        expected = model.run(features)
        (got,) = session.run(["mixed_outputs"], feeds)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())

    proto = onnx.load(version / "model.onnx")
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", OPSET)]
    assert proto.ir_version <= 10  # what ONNX Runtime 1.18 reads
    config, graph = config_of(tmp_path / "repo/middle"), proto.graph
    for described, tensors in ((config.input, graph.input), (config.output, graph.output)):
        assert len(described) == len(tensors)
        for tensor, value in zip(described, tensors, strict=True):
            kind = value.type.tensor_type
            assert tensor.name == value.name
            assert model_config_pb2.DataType.Name(tensor.data_type) == TRITON_TYPES[kind.elem_type]
            assert list(tensor.dims) == [size.dim_value for size in kind.shape.dim[1:]]
            assert kind.shape.dim[0].dim_param == "rows"


@pytest.fixture(scope="module")
def converted(cloud_file: Path) -> dict[str, onnx.ModelProto]:
    """The conversion of `cloud_file` to each datatype, which takes a second, once for all tests below."""
    return {dtype: onnx_model(CloudModel(cloud_file), dtype) for dtype in ("float32", "float16")}


@pytest.fixture
def model(cloud_file: Path, converted: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> CloudModel:
    monkeypatch.setattr(module, "onnx_model", lambda model, dtype: converted[dtype])
    return CloudModel(cloud_file)


def test_batching_and_load_shedding(model: CloudModel, tmp_path: Path) -> None:
    export_triton(model, tmp_path, max_batch=48, max_delay_us=700, instances=2)
    config = config_of(tmp_path / "middle")
    assert (config.name, config.backend, config.max_batch_size) == ("middle", "onnxruntime", 48)
    assert config.version_policy.HasField("all")
    batching = config.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([48], 700)
    policy = batching.default_queue_policy
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
    assert 0 < policy.default_timeout_microseconds <= 10_000_000
    assert 0 < policy.max_queue_size <= 1000
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, model_config_pb2.ModelInstanceGroup.KIND_AUTO)


def test_a_batch_holds_the_largest_message_of_the_edge(model: CloudModel, tmp_path: Path) -> None:
    export_triton(model, tmp_path)
    bytes_of_a_row = 4 * np.prod(model.input_shape)
    assert config_of(tmp_path / "middle").max_batch_size * bytes_of_a_row >= 1_500_000


def test_versions_lie_side_by_side(model: CloudModel, tmp_path: Path) -> None:
    export_triton(model, tmp_path, max_batch=8)
    model.version = 2
    export_triton(model, tmp_path, max_batch=16)
    assert files(tmp_path) == {"middle/config.pbtxt", "middle/1/model.onnx", "middle/2/model.onnx"}
    assert config_of(tmp_path / "middle").max_batch_size == 16  # the last export's, for both
    model.version = 3
    with pytest.raises(ValueError, match=r"all versions in .* must have the tensors of .*/1/model\.onnx"):
        export_triton(model, tmp_path, wire_dtype="float16")
    assert config_of(tmp_path / "middle").max_batch_size == 16
    assert not (tmp_path / "middle/3").exists()


def test_an_existing_version_is_replaced_only_when_told(model: CloudModel, tmp_path: Path) -> None:
    version = export_triton(model, tmp_path, max_batch=8)
    (version / "model.onnx").write_bytes(b"old")
    with pytest.raises(FileExistsError, match="middle/1 must not exist without --force"):
        export_triton(model, tmp_path)
    assert (version / "model.onnx").read_bytes() == b"old"
    export_triton(model, tmp_path, wire_dtype="float16", force=True)  # the only version may change its tensors
    assert files(tmp_path) == {"middle/config.pbtxt", "middle/1/model.onnx"}
    onnxruntime.InferenceSession(version / "model.onnx")


@pytest.mark.parametrize(("factor", "got"), [(1.5, r"0\.\d"), (float("nan"), "nan")])
def test_an_answer_that_is_not_pytorchs_is_not_put_in_place(
    factor: float,
    got: str,
    model: CloudModel,
    converted: dict[str, onnx.ModelProto],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = onnx.ModelProto()
    wrong.CopyFrom(converted["float32"])
    weight = max(wrong.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] *= factor
    weight.raw_data = values.tobytes()
    monkeypatch.setattr(module, "onnx_model", lambda model, dtype: wrong)
    with pytest.raises(
        FacemixError, match=rf"must answer as PyTorch does, within 0.0001 of the largest output, got {got}"
    ):
        export_triton(model, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def full_disk(monkeypatch: pytest.MonkeyPatch, method: str, suffix: str) -> None:
    """Let the disk be full after the first bytes of a file whose name ends in `suffix`."""
    write = getattr(Path, method)

    def failing(self: Path, data: Any) -> int:
        if self.suffix == suffix:
            write(self, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, method, failing)


@pytest.mark.parametrize(("method", "name"), [("write_bytes", "1/model.onnx"), ("write_text", "config.pbtxt")])
def test_a_full_disk_leaves_what_was_there(
    method: str, name: str, model: CloudModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, suffix = tmp_path / "repo", Path(name).suffix
    with monkeypatch.context() as patch:
        full_disk(patch, method, suffix)
        with pytest.raises(OSError, match=re.escape(f"No space left on device: '{repo / 'middle' / name}'")):
            export_triton(model, repo)
        assert not repo.exists()
    version = export_triton(model, repo, max_batch=8)
    before = (version / "model.onnx").read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch, method, suffix)
        for number, force in ((1, True), (2, False)):
            model.version = number
            with pytest.raises(OSError, match="No space left"):
                export_triton(model, repo, max_batch=16, force=force)
    assert sorted(path.name for path in (repo / "middle").iterdir()) == ["1", "config.pbtxt"]
    assert files(repo) == {"middle/config.pbtxt", "middle/1/model.onnx"}
    assert (version / "model.onnx").read_bytes() == before
    assert config_of(repo / "middle").max_batch_size == 8


def test_names_that_are_no_folder(model: CloudModel, tmp_path: Path) -> None:
    for name in ("../middle", "a/b", ".hidden", "", 'a"b'):
        model.name = name
        with pytest.raises(ValueError, match=re.escape("a model's name must do as the name of a folder, got")):
            export_triton(model, tmp_path / "repo")
    assert not (tmp_path / "repo").exists()


def test_the_command(model: CloudModel, cloud_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "--format", "triton", "--model", str(cloud_file), "--out", str(tmp_path / "repo")]
    assert main([*command, "--wire-dtype", "float16", "--max-batch", "8", "--max-delay-us", "0"]) == 0
    assert capsys.readouterr().out == f"facemix export: middle version 1 in {tmp_path}/repo/middle/1\n"
    assert config_of(tmp_path / "repo/middle").dynamic_batching.max_queue_delay_microseconds == 0
    for more, text in (
        ([], "must not exist without --force"),
        (["--max-batch", "0"], "--max-batch must be between 1 and 65536, got 0"),
        (["--instances", "65"], "--instances must be between 1 and 64, got 65"),
        (["--model", str(tmp_path / "none")], "path must be a file, got"),
        (["--model", str(tmp_path / "repo/middle/1/model.onnx")], "must be a safetensors file of facemix"),
    ):
        assert main([*command, *more]) == 1
        error = capsys.readouterr().err
        assert text in error
        assert len(error.splitlines()) == 1


def test_bfloat16_is_refused(cloud_file: Path) -> None:
    # Triton's ONNX Runtime backend knows no such tensor: the model would not load.
    with pytest.raises(ValueError, match="wire dtype must be one of float32, float16, int8, got 'bfloat16'"):
        onnx_model(CloudModel(cloud_file), "bfloat16")


def test_a_repository_that_cannot_be_is_refused_before_anything_is_converted(
    model: CloudModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(module, "onnx_model", None)
    with pytest.raises(ValueError, match=r"export: --out must be where files can be written, got .*file/repo: "):
        export_triton(model, tmp_path / "file" / "repo")
