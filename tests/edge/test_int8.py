"""int8 on the wire: scales in the bundle, found by calibration; what is sent; decoys in the bundle."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import CONFIG, FEATURES, OUTPUTS, images, tensors, written
from facemix.calibration import mixtures, scales
from facemix.wire import get_features
from facemix.wire.open_inference_pb2 import ModelInferRequest
from tolerances import assert_near
from torch import nn
from torch_edge import Network, exported, key_of, mixed, normalised, trained
from wire_requests import put_features

from facemix_ops.edge import Bundle, BundleError, EdgeModel

IMAGE = (20, 18, 3)
SCALES = np.array([0.5, 0.25, 1, 2, 0.125], np.float32)
FIRST = {
    "relu": [nn.Conv2d(3, 9, 3, 1, 1, bias=False), nn.BatchNorm2d(9), nn.ReLU()],
    "prelu, pool": [nn.Conv2d(3, 16, 5, 2, 2), nn.PReLU(init=-0.3), nn.MaxPool2d(3, 2, 1)],
    "dead channels": [nn.Conv2d(3, 4, 3), nn.ReLU()],
}


def with_tensors(config: dict[str, Any] | None = None, **more: Any) -> Bundle:
    named = {name.replace("_", "."): value for name, value in more.items()}
    return Bundle.parse(written({**CONFIG, **(config or {})}, {**tensors(), **named}))


@pytest.fixture
def model() -> EdgeModel:
    return EdgeModel(with_tensors(wire_scales=SCALES))


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("size", [2, 8])
def test_equals_pytorch(name: str, size: int, tmp_path: Path) -> None:
    """What is sent, times its scales, is the mixture of the features; and most of the range is used."""
    network = trained(Network(*FIRST[name]), IMAGE)
    if name == "dead channels":
        with torch.no_grad():
            network.first[0].bias[1] = -1e3
    pictures = images(4 * size, IMAGE)
    model = EdgeModel.load(exported(network, tmp_path / "e", IMAGE, size, calibration=pictures, wire_dtype="int8"))
    with model.mix(pictures) as request:
        assert request.wire_dtype == "int8"
        assert (request.payload.dtype, request.scales.dtype) == (np.int8, np.float32)
        assert request.scales.shape == request.payload.shape[:2]
        assert request.scales.flags.c_contiguous
        np.testing.assert_array_equal(request.scales, np.broadcast_to(model.bundle.scales, request.scales.shape))
        key, rows = key_of(request)
        batch = torch.empty_like(normalised(pictures))
        batch[rows] = normalised(pictures)
        unit = torch.from_numpy(model.bundle.scales.copy()).reshape(-1, 1, 1)
        expected, plain = (mixed(network, batch.to(t), key, t) / unit for t in (torch.float64, torch.float32))
        assert_near(torch.from_numpy(request.payload), expected, plain)
        largest = np.abs(request.payload.astype(int)).max((0, 2, 3))
        assert (largest[:1] > 60).all()
        assert (largest > 60).sum() >= len(largest) - 1


@pytest.mark.parametrize("wire_dtype", ["float32", "float16", "bfloat16"])
def test_others_have_no_scales(model: EdgeModel, wire_dtype: str) -> None:
    with model.mix(images(4), wire_dtype=wire_dtype) as request:
        assert request.scales is None
    with model.mix(images(4), wire_dtype="int8") as request:
        assert request.scales is not None
        assert request.classify(np.zeros((4, OUTPUTS), np.float32)).scores.shape == (4, 4)


def test_it_goes_over_the_wire(model: EdgeModel) -> None:
    with model.mix(images(8), wire_dtype="int8") as request:
        message = ModelInferRequest()
        put_features(message, request.payload, "INT8", request.scales)
        values, datatype = get_features(message, FEATURES)
    assert datatype == "INT8"
    np.testing.assert_array_equal(values, request.payload * SCALES.reshape(-1, 1, 1))


def test_a_buffer_is_reused(model: EdgeModel) -> None:
    memory = np.full(8 * np.prod(FEATURES) + 2, -128, np.int8)
    out = memory[1:-1].reshape(8, *FEATURES)
    with model.mix(images(8), wire_dtype="int8", out=out) as request:
        assert request.payload is out
    assert out.min() > -128
    assert memory[0] == memory[-1] == -128
    with pytest.raises(TypeError, match="out must have dtype int8 for this wire_dtype, got uint8"):
        model.mix(images(8), wire_dtype="int8", out=out.view(np.uint8))


def test_without_scales() -> None:
    model = EdgeModel(with_tensors())
    with pytest.raises(
        ValueError, match=r"EdgeModel\.mix: wire_dtype must be another .* \(export_edge finds them in cal"
    ):
        model.mix(images(4), wire_dtype="int8")


def test_replies_are_floats(model: EdgeModel) -> None:
    with (
        model.mix(images(4), wire_dtype="int8") as request,
        pytest.raises(TypeError, match="reply must have dtype flo"),
    ):
        request.classify(np.zeros((4, OUTPUTS), np.int8))


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ({"wire_dtype": "int8"}, {}, "wire.scales must be there where int8 is sent, got none"),
        ({}, {"wire_scales": SCALES[:4]}, "wire.scales must have shape [5], got [4]"),
        ({}, {"wire_scales": SCALES.reshape(1, 5)}, "tensor 'wire.scales' must be there with 1 dimensions, got [1, 5]"),
        ({}, {"wire_scales": 0 * SCALES}, "wire.scales must be positive, got 0"),
        ({}, {"wire_scales": -SCALES}, "wire.scales must be positive, got -2"),
        ({}, {"wire_scales": np.inf * SCALES}, "tensor 'wire.scales' must be finite, got 5 values that are not"),
        ({}, {"wire_scales": 1e-40 * SCALES}, "wire.scales must leave weights and results finite"),
        ({}, {"wire_scales": np.float32(1e38) * SCALES}, "wire.scales must leave weights and results finite"),
        ({}, {"wire_scales": SCALES.astype(np.float16)}, "tensor 'wire.scales' must have dtype F32, got 'F16'"),
        ({}, {"decoys": images(2)[:, 1:]}, "decoys must be images of (12, 10, 3), got [2, 11, 10, 3]"),
        ({}, {"decoys": images(2)[0]}, "tensor 'decoys' must be there with 4 dimensions, got [12, 10, 3]"),
        ({}, {"decoys": images(2).astype(np.float32)}, "tensor 'decoys' must have dtype U8, got 'F32'"),
        ({}, {"decoys": images(2).astype(np.int8)}, "tensor 'decoys' must have dtype U8, got 'I8'"),
        ({}, {"decoys": images(0)}, "tensor 'decoys' must have a shape of positive integers"),
        ({}, {"last_bias": np.zeros(4, np.uint8)}, "tensor 'last.bias' must have dtype F32, got 'U8'"),
    ],
)
def test_what_cannot_be(config: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=re.escape(message)):
        with_tensors(config, **more)


def test_the_bundles_decoys_fill_groups() -> None:
    """Where the caller has none; the digest covers them like everything else."""
    decoys = np.stack([np.full((12, 10, 3), n, np.uint8) for n in range(3)])
    bundle = with_tensors(decoys=decoys)
    np.testing.assert_array_equal(bundle.decoys, decoys)
    with EdgeModel(bundle).mix(images(5)) as request:
        assert len(request.payload) == 8
    filled = EdgeModel(bundle)._features(images(1), [2, 0, 1], np.arange(4))[1:]
    others = EdgeModel(bundle, decoys=decoys + 200)._features(images(1), [2, 0, 1], np.arange(4))[1:]
    assert others.min() > filled.max()
    with pytest.raises(ValueError, match="or leave no more places than decoys fill, 0, got"):
        EdgeModel(with_tensors()).mix(images(5))


def test_least_mean_square_error() -> None:
    """No scale of a fine grid is better; an outlier is cut off, a short tail is not; zeros are no division by zero."""
    draw = np.random.default_rng(0)
    normal, flat = draw.standard_normal(100_000), draw.uniform(-3, 3, 100_000)
    outlier = np.concatenate([normal[:-1], [7.0]])
    values = np.stack([normal, flat, outlier, 0 * flat]).astype(np.float32)
    found = scales(values)

    def error(row: np.ndarray, scale: float) -> float:
        return float(np.square(np.clip(np.rint(row / scale), -127, 127) * scale - row).mean())

    for row, scale in zip(values[:3], found, strict=False):
        best = min(error(row, s) for s in np.linspace(0.1, 1, 100) * np.abs(row).max() / 127)
        assert error(row, scale) <= 1.05 * best
    assert found[1] > 0.98 * 3 / 127
    assert found[2] < 0.9 * 7 / 127
    assert found[3] == values.max() / np.float32(127)
    assert scales(values[3:]) == 1
    assert found.dtype == np.float32


def test_mixtures_are_what_is_sent() -> None:
    """Every channel's own values, fresh keys every time; an orthogonal key leaves a channel its sum of squares."""
    bundle = with_tensors()
    first, again = (mixtures(EdgeModel(bundle), images(12)) for _ in range(2))
    assert first.shape == again.shape == (5, 4 * 12 * 30)
    assert not np.array_equal(first, again)  # the keys
    with EdgeModel(bundle).mix(images(12)) as request:
        sent = np.square(request.payload).sum((0, 2, 3))
    for values in (first, again):
        np.testing.assert_allclose(np.square(values).sum(1), 4 * sent, rtol=1e-4)
    assert mixtures(EdgeModel(bundle), images(10)).shape == first.shape  # the last group is filled
    assert mixtures(EdgeModel(bundle), images(36)).shape == (5, 4 * 36 * 30)  # more than are mixed at once


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calibration": images(3, IMAGE)}, ValueError, "export_edge: calibration must be at least 4 images, got 3"),
        ({"calibration": images(4)}, ValueError, "export_edge: calibration must have shape [N, 20, 18, 3]"),
        ({"calibration": torch.zeros(4, 20, 18, 3)}, TypeError, "export_edge: calibration must have dtype uint8"),
        ({"decoys": images(0, IMAGE)}, ValueError, "export_edge: decoys must have shape [N, 20, 18, 3]"),
        ({"decoys": [1]}, TypeError, "export_edge: decoys must be a NumPy array, got list"),
        ({"wire_dtype": "int8"}, ValueError, "export_edge: wire.scales must be there where int8 is sent, got none"),
    ],
)
def test_export_refuses(options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=re.escape(message)):
        exported(Network(nn.Conv2d(3, 5, 3)), tmp_path / "e", IMAGE, 4, **options)
    assert not list(tmp_path.iterdir())


def test_export_takes_tensors_and_arrays(tmp_path: Path) -> None:
    network, pictures = trained(Network(nn.Conv2d(3, 5, 3)), IMAGE), images(6, IMAGE)
    strided = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for given in (pictures, torch.from_numpy(pictures), strided):
        bundle = Bundle.load(exported(network, tmp_path / "e", IMAGE, 4, calibration=given, decoys=given))
        np.testing.assert_array_equal(bundle.decoys, pictures)
        assert bundle.scales.shape == (5,)
        assert bundle.wire_dtype == "float32"
