"""The edge half on PyTorch: what it sends and what it makes of the reply equal plain loops; its file is checked."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facemix.edge import load_half
from facemix.edge.torch_bundle import KIND
from facemix.edge.torch_half import TorchHalf, TorchRequest, _on_the_wire, _shared
from facemix.export import export_edge
from facemix.export_torch import export_edge_torch
from facemix.models import build
from facemix.partition import partition
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor, nn

from facemix_ops.edge import BundleError, EdgeModel
from facemix_ops.edge.key import Key
from facemix_ops.edge.safetensors import parse, seal

SHAPE, GROUP = (1, 32, 32), 4
OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
SETTINGS: dict[str, Any] = {"name": "middle", "group_size": GROUP, "mean": [0.45], "std": [0.3], "max_coeff": 0.9}
TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ROUNDING = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
CUTS = [
    *(("resnet18", pre, post) for pre in (1, 2, 3) for post in (1, 2, 3)),
    *(("vgg16", pre, post) for pre, post in ((2, 1), (1, 2), (3, 3))),
]


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCK = [f"{layer}{n}.weight" for layer in ("conv", "relu") for n in (1, 2)] + [
    f"bn{n}.{w}" for n in (1, 2) for w in NORM
]


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE[1:], 1), dtype=np.uint8)


def trained(builder: str) -> tuple[nn.Module, dict[str, Any]]:
    """A network with batch statistics that are not the trivial ones, and the options it was built of."""
    options = OPTIONS if builder == "resnet18" else {"num_classes": 6, "in_channels": 1, "width": 0.0625}
    model = build(builder, options)
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, *SHAPE))
    return model.eval(), options


def exported(folder: Path, builder: str = "resnet18", pre: int = 2, post: int = 1, **changes: Any) -> Path:
    model, options = trained(builder)
    path = folder / "edge.safetensors"
    export_edge_torch(path, model, builder, options, SHAPE, pre=pre, post=post, **{**SETTINGS, **changes})
    return path


@pytest.fixture
def half(tmp_path: Path) -> TorchHalf:
    return load_half(exported(tmp_path, calibration=images(16), classes=list("abcdef"), decoys=images(3)))


def by_loops(x: Tensor, request: TorchRequest, back: bool = False) -> Tensor:
    """Mix and shuffle rows of float64 [B, ...], or undo it, by the definition."""
    key = request._key
    result = torch.zeros_like(x)
    for g, coeffs in enumerate(key.coeffs):
        for i in range(GROUP):
            for j in range(GROUP):
                sent, row = key.order[g * GROUP + i], g * GROUP + j
                if back:
                    result[row] += coeffs[i, j] * x[sent]
                else:
                    result[sent] += coeffs[i, j] * x[row]
    return result


@pytest.mark.parametrize(("builder", "pre", "post"), CUTS)
@pytest.mark.parametrize("wire_dtype", TORCH_DTYPES)
def test_equals_plain_loops(builder: str, pre: int, post: int, wire_dtype: str, tmp_path: Path) -> None:
    """The payload and the scores, in float64 with the key that was used."""
    model, options = trained(builder)
    export_edge_torch(tmp_path / "e", model, builder, options, SHAPE, pre=pre, post=post, **SETTINGS)
    parts = partition(copy.deepcopy(model).double(), pre, post)
    pictures = images(3 * GROUP)
    half = load_half(tmp_path / "e")
    with half.mix(pictures, wire_dtype=wire_dtype) as request, torch.no_grad():
        assert request.payload.shape == (3 * GROUP, *half.bundle.features_shape)
        assert request.payload.flags.c_contiguous
        assert request.scales is None
        rows = torch.from_numpy(request._key.rows.copy())
        x = torch.empty(3 * GROUP, *SHAPE, dtype=torch.float64)
        x[rows] = (torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255 - 0.45) / 0.3
        sent = by_loops(parts.edge_first(x), request)
        payload = torch.from_numpy(request.payload).view(TORCH_DTYPES[wire_dtype]).double()
        torch.testing.assert_close(payload, sent, rtol=ROUNDING[wire_dtype], atol=ROUNDING[wire_dtype])
        reply = parts.cloud(sent)
        expected = parts.edge_last(by_loops(reply, request, back=True))[rows]
        result = request.classify(reply.float().numpy())
    torch.testing.assert_close(torch.from_numpy(result.scores).double(), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(result.labels, expected.argmax(1))
    assert result.names is None


def test_int8(half: TorchHalf) -> None:
    scales = half.bundle.scales
    assert scales is not None
    with half.mix(images(16), wire_dtype="int8") as request, torch.no_grad():
        assert request.payload.dtype == np.int8
        assert request.scales is not None
        np.testing.assert_array_equal(request.scales, np.tile(scales, (16, 1)))
        x = half.inputs(images(16), request._key.rows)
        sent = by_loops(half.first(x).double(), request).numpy()
    scale = scales[:, None, None].astype(np.float64)
    assert np.abs(request.payload).max() > 100
    error = np.abs(request.payload * scale - np.clip(sent, -127 * scale, 127 * scale)) / scale
    assert error.max() <= 0.5 + 1e-3


def test_names_and_replies_of_other_dtypes(half: TorchHalf) -> None:
    with half.mix(images(8)) as request:
        result = request.classify(np.ones((8, 64), np.float16))
    assert result.names == ["abcdef"[label] for label in result.labels]
    assert result.scores.dtype == np.float32
    with half.mix(images(8)) as request:
        assert request.classify(np.full((8, 64), 0x3F80, np.uint16)).scores.shape == (8, 6)


def test_keys_are_drawn_anew_and_groups_are_not(half: TorchHalf) -> None:
    """The same images again are in the same groups, in which they are mixed in another way."""
    requests = [half.mix(images(16)) for _ in range(4)]
    assert len({request._key.rows.tobytes() for request in requests}) == 1
    assert len({request._key.coeffs.tobytes() for request in requests}) == 4
    for request in requests:
        request.close()


def zeroed(request: TorchRequest) -> bool:
    key = request._key
    return request.closed and not any(secret.any() for secret in (key.coeffs, key.order, key.rows))


def test_keys_stay_below_the_bound_of_the_file(tmp_path: Path) -> None:
    half = load_half(exported(tmp_path, max_coeff=0.7))
    with half.mix(images(16)) as request:
        assert np.abs(request._key.coeffs).max() <= 0.7


def test_keys_are_zeroed_on_every_path(half: TorchHalf, monkeypatch: pytest.MonkeyPatch) -> None:
    with half.mix(images(8)) as request:
        assert not request.closed
        request.classify(np.ones((8, 64), np.float32))
        assert zeroed(request)
    with pytest.raises(KeyboardInterrupt), half.mix(images(8)) as request:
        raise KeyboardInterrupt
    assert zeroed(request)
    with half.mix(images(8)) as request, pytest.raises(ValueError, match="finite, got 512 values"):
        request.classify(np.full((8, 64), np.nan, np.float32))
    assert zeroed(request)
    with half.mix(images(8)) as request, pytest.raises(ValueError, match="reply must leave scores finite, got"):
        request.classify(np.where(np.arange(8 * 64) % 2, 3.4e38, -3.4e38).astype(np.float32).reshape(8, 64))
    assert zeroed(request)
    with pytest.raises(ValueError, match=r"TorchRequest\.classify: the request must be open"):
        request.classify(np.ones((8, 64), np.float32))

    keys: list[Key] = []

    def drawn(*args: Any) -> Key:
        keys.append(Key(*args))
        return keys[-1]

    def failing(*args: Any) -> Tensor:
        raise MemoryError

    monkeypatch.setattr("facemix.edge.torch_half.Key", drawn)
    monkeypatch.setattr(half, "_first", failing)
    with pytest.raises(MemoryError):
        half.mix(images(8))
    assert [key.closed for key in keys] == [True]  # and not only when the last who knows it forgets it


def test_a_key_leaves_no_trace(half: TorchHalf) -> None:
    request = half.mix(images(8))
    assert repr(request) == "TorchRequest(payload=float32 [8, 8, 8, 8], wire_dtype='float32')"
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="private"):
            copied(request)
    shared = _shared(request._key)
    assert shared.coeffs.any()
    request.close()
    assert not shared.coeffs.any()  # it was no copy
    assert not shared.order.any()
    assert repr(request).endswith("closed)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": images(6)}, "TorchHalf.mix: images must divide into groups of 4, got 6"),
        ({"images": images(4).astype(float)}, "TorchHalf.mix: images must have dtype uint8"),
        ({"images": images(4)[:, 1:]}, "TorchHalf.mix: images must have shape"),
        ({"images": images(4), "wire_dtype": "float64"}, "TorchHalf.mix: wire_dtype must be one of float32, "),
        ({"images": images(4), "wire_dtype": "int8"}, "be a float for a file that was written without calibration"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    half = load_half(exported(tmp_path))
    with pytest.raises((TypeError, ValueError), match=message):
        half.mix(**change)


def test_bad_replies(half: TorchHalf) -> None:
    with half.mix(images(8)) as request:
        for reply, message in (
            (np.ones((7, 64), np.float32), r"reply must have shape \[8, 64\], got \[7, 64\]"),
            (np.ones((8, 64)), "reply must have dtype"),
            ([1.0], "reply must be a NumPy array"),
        ):
            with pytest.raises((TypeError, ValueError), match=message):
                request.classify(reply)  # type: ignore[arg-type]
        request.classify(np.ones((8, 64), np.float32))  # still open for a better one


def test_bundle(half: TorchHalf) -> None:
    bundle = half.bundle
    assert (bundle.name, bundle.version, bundle.image_shape, bundle.features_shape) == (
        "middle", 1, (32, 32, 1), (8, 8, 8)
    )  # fmt: skip
    assert bundle.classes == tuple("abcdef")
    np.testing.assert_array_equal(bundle.decoys, images(3))


@pytest.mark.parametrize(("builder", "pre", "post"), CUTS)
def test_the_file_holds_the_edges_weights_and_no_others(builder: str, pre: int, post: int, tmp_path: Path) -> None:
    model, _ = trained(builder)
    parts = partition(model, pre, post)
    names = {f"weights.{name}" for part in (parts.edge_first, parts.edge_last) for name in part.state_dict()}
    assert load(exported(tmp_path, builder, pre, post).read_bytes()).keys() == names


def rewritten(path: Path, config: dict[str, Any], **tensors: Any) -> bytes:
    """The file with some fields and tensors changed (None: left out), and a digest that holds."""
    data = path.read_bytes()
    old = json.loads(parse(data).metadata["facemix"])
    fields = {name: value for name, value in {**old, **config}.items() if value != "left out"}
    weights = {name: value for name, value in {**load(data), **tensors}.items() if value is not None}
    return seal(save(weights, {"facemix": json.dumps(fields), "sha256": "0" * 64}))


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({"kind": "facemix-edge-torch-2"}, {}, f"the kind must be '{KIND}', got 'facemix-edge-torch-2'"),
        ({"builder": "left out"}, {}, "the config must have 'builder'"),
        ({"more": 1}, {}, "no other fields"),
        ({"builder": "alexnet"}, {}, "build: name must be one of"),
        ({"options": {"depth": 3}}, {}, "build: options must suit resnet18"),
        (  # three quarters of what is cut fill up
            {
                "options": {**OPTIONS, "patches": 2894},
                "pre": 1,
                "features_shape": [8, 2, 2],
                "image_shape": [11580, 11580, 1],
            },
            {f"weights.layer1.0.{name}": None for name in BLOCK},
            r"what is sent for an image must be of at most 134217728 values, got 8375236 rows of \[8, 2, 2\]",
        ),
        ({"options": {"width": 1e308}}, {}, "the weights must suit the network of the config, got build: options must"),
        ({"options": [1]}, {}, "options must be a JSON object, got list"),
        ({"pre": 1}, {}, "layer1.0.bn1.bias, .* missing or too many"),
        ({"pre": 99}, {}, "pre must be between 1 and 9"),
        ({"pre": True}, {}, "pre must be a number of blocks or the name of a module, got bool"),
        ({"post": "conv1"}, {}, "pre must end at least one layer before post"),
        ({"outputs_shape": [0]}, {}, "outputs_shape must be positive integers"),
        ({"outputs_shape": [65]}, {}, "the weights must suit the network"),
        ({"image_shape": [1 << 20, 1 << 20, 1]}, {}, "image_shape must be of at most 134217728 values"),
        ({"features_shape": [8, 1 << 20, 1 << 20]}, {}, "features_shape must be of at most 134217728 values"),
        ({"outputs_shape": [1 << 40]}, {}, "outputs_shape must be of at most 134217728 values"),
        ({"image_shape": [8192, 16384, 1]}, {}, r"features_shape must be \[8, 2048, 4096\], got \[8, 8, 8\]"),
        ({"features_shape": [8, 8, 9]}, {}, r"features_shape must be \[8, 8, 8\], got \[8, 8, 9\]"),
        ({"classes": ["a"]}, {}, r"classes must be a name for each score, or null, got scores of shape \[6\]"),
        ({"attributes": ["a"]}, {}, "attributes must be a name for each two scores, without classes, got 1 for 6"),
        (
            {"attributes": list("abc"), "classes": list("abcdef")},
            {},
            "attributes must be .* without classes, got 3 for 6 and classes",
        ),
        ({"attributes": ["a", "a", "b"]}, {}, "attributes must be different texts"),
        ({"std": [0.0]}, {}, "std must be at least"),
        ({"max_coeff": 0.4}, {}, "max_coeff must be at least"),
        ({"group_size": 65}, {}, "group_size must be an integer from 1 to 64"),
        ({"wire_dtype": "int8"}, {}, "wire_dtype must be a float where there are no scales"),
        ({}, {"weights.conv1.weight": None}, "conv1.weight missing or too many"),
        ({}, {"weights.more": np.ones(3, np.float32)}, "more missing or too many"),
        ({}, {"weights.fc.bias": np.ones(7, np.float32)}, "size mismatch for fc.bias"),
        ({}, {"weights.fc.bias": np.full(6, np.inf, np.float32)}, "tensor 'weights.fc.bias' must be finite"),
        ({}, {"weights.fc.bias": np.ones(6)}, "the weights must suit the network"),
        ({}, {"wire.scales": np.ones(9, np.float32)}, r"scales must be positive float32 \[8\], got float32 \[9\]"),
        ({}, {"wire.scales": np.zeros(8, np.float32)}, "scales must be positive"),
        ({}, {"decoys": np.ones((2, 32, 31, 1), np.uint8)}, "decoys must have shape"),
        ({}, {"decoys": np.ones((2, 32, 32, 1), np.float32)}, "decoys must have dtype uint8"),
    ],
)
def test_files_that_do_not_hold_together(
    config: dict[str, Any], tensors: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = exported(tmp_path)
    path.write_bytes(rewritten(path, config, **tensors))
    with pytest.raises(BundleError, match=message) as caught:
        load_half(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_damaged_files(tmp_path: Path) -> None:
    path = exported(tmp_path)
    good = path.read_bytes()
    TorchHalf.parse(rewritten(path, {}))  # which is how the test above makes its files
    for place in (8, 200, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[place] ^= 1
        path.write_bytes(bad)
        with pytest.raises(BundleError):
            load_half(path)
    path.write_bytes(good[:-4])
    with pytest.raises(BundleError):
        load_half(path)
    with pytest.raises(FileNotFoundError):
        load_half(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a"]}, "export_edge_torch: classes must be a name for each score"),
        ({"wire_dtype": "int8"}, "export_edge_torch: wire_dtype must be a float where there are no scales"),
        ({"calibration": images(3)}, "export_edge_torch: calibration must be at least 4 images, got 3"),
        ({"decoys": images(3)[..., 0]}, "export_edge_torch: decoys must have shape"),
        ({"mean": [0.5, 0.5]}, "export_edge_torch: mean must be 1 numbers"),
    ],
)
def test_bad_exports_leave_no_file(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        exported(tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_load_half_needs_pytorch_only_for_its_own_file(tmp_path: Path) -> None:
    model, _ = trained("resnet18")
    export_edge(tmp_path / "numpy.safetensors", model, SHAPE, **SETTINGS)
    exported(tmp_path)
    assert isinstance(load_half(tmp_path / "edge.safetensors"), TorchHalf)
    assert isinstance(load_half(tmp_path / "numpy.safetensors", threads=1), EdgeModel)
    code = """
import sys
sys.modules["torch"] = None
from facemix.edge import load_half
load_half("numpy.safetensors")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_int8_stays_within_its_range() -> None:
    values = torch.tensor([300.0, 127.6, -127.6, -300.0]).view(1, 1, 2, 2)
    sent = _on_the_wire(values, "int8", np.ones(1, np.float32))
    assert sent.ravel().tolist() == [127, 127, -127, -127]
