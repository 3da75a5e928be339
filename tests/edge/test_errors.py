"""Bad input is refused with a clear error, and before a key is drawn."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bundles import FEATURES, OUTPUTS, bundle_bytes, images

from facemix_ops.edge import Bundle, EdgeModel

IMAGES_RULE = "images must have shape [N, 12, 10, 3] (height, width, channels), N >= 1"


@pytest.fixture
def model() -> EdgeModel:
    return EdgeModel(Bundle.parse(bundle_bytes()))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (images(4).astype(np.float32), TypeError, "images must have dtype uint8, got float32"),
        (images(4).astype(np.int8), TypeError, "images must have dtype uint8, got int8"),
        (images(4).tolist(), TypeError, "images must be a NumPy array, got list"),
        (images(4)[0], ValueError, f"{IMAGES_RULE}, got [12, 10, 3]"),
        (images(0), ValueError, f"{IMAGES_RULE}, got [0, 12, 10, 3]"),
        (images(4).transpose(0, 3, 1, 2), ValueError, f"{IMAGES_RULE}, got [4, 3, 12, 10]"),
        (images(4)[..., :1], ValueError, f"{IMAGES_RULE}, got [4, 12, 10, 1]"),
        (images(5), ValueError,
         "images must divide into groups of 4, or leave no more places than decoys fill, 0, got 5"),
    ],
)  # fmt: skip
def test_images(model: EdgeModel, given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"EdgeModel.mix: {message}")):
        model.mix(given)


@pytest.mark.parametrize("wire_dtype", ["float64", "fp16", "", 3, [], np.float16])
def test_wire_dtype(model: EdgeModel, wire_dtype: Any) -> None:
    with pytest.raises(
        ValueError, match=r"EdgeModel\.mix: wire_dtype must be one of float32, float16, bfloat16, int8, got"
    ):
        model.mix(images(4), wire_dtype=wire_dtype)


def misaligned() -> np.ndarray:
    return np.frombuffer(bytearray(4 * np.prod(SENT) + 1), np.float32, offset=1).reshape(SENT)


def frozen() -> np.ndarray:
    out = np.zeros(SENT, np.float32)
    out.flags.writeable = False
    return out


SENT = (4, *FEATURES)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bytearray(4 * np.prod(SENT)), TypeError, "out must be a NumPy array, got bytearray"),
        (lambda: np.zeros(SENT, np.float64), TypeError, "out must have dtype float32 for this wire_dtype, got float64"),
        (lambda: np.zeros(SENT, ">f4"), TypeError, "out must have dtype float32 for this wire_dtype, got >f4"),
        (lambda: np.zeros(SENT, np.float16), TypeError, "out must have dtype float32 for this wire_dtype, got float16"),
        (lambda: np.zeros((4, 5, 6, 4), np.float32), ValueError, "out must have shape [4, 5, 6, 5], got [4, 5, 6, 4]"),
        (lambda: np.zeros(np.prod(SENT), np.float32), ValueError, "out must have shape [4, 5, 6, 5], got [600]"),
        (lambda: np.zeros((4, 5, 6, 10), np.float32)[..., ::2], ValueError, "out must be contiguous"),
        (lambda: np.zeros(SENT, np.float32, "F"), ValueError, "out must be contiguous"),
        (misaligned, ValueError, "out must be aligned, got a buffer that is not"),
        (frozen, ValueError, "out must be writeable, got a buffer that is not"),
    ],
)
def test_out(model: EdgeModel, make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"EdgeModel.mix: {message}")):
        model.mix(images(4), out=make())


def test_out_may_not_overlap(model: EdgeModel) -> None:
    memory = np.zeros(4 * np.prod(SENT), np.uint8)
    pictures = memory[: 4 * 360].reshape(4, 12, 10, 3)
    with pytest.raises(ValueError, match="out must not share memory with images, got an overlapping buffer"):
        model.mix(pictures, out=memory.view(np.float32).reshape(SENT))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((4, OUTPUTS), np.float64), TypeError,
         "have dtype float32, float16, or uint16 (the bits of bfloat16), got float64"),
        (np.zeros((4, OUTPUTS), ">f4"), TypeError, "have dtype float32"),
        (np.zeros((4, OUTPUTS), object), TypeError, "have dtype float32"),
        ([[0.0] * OUTPUTS] * 4, TypeError, "be a NumPy array, got list"),
        (np.zeros((3, OUTPUTS), np.float32), ValueError, "have shape [4, 7], got [3, 7]"),
        (np.zeros((4, OUTPUTS + 1), np.float32), ValueError, "have shape [4, 7], got [4, 8]"),
        (np.zeros(4 * OUTPUTS, np.float32), ValueError, "have shape [4, 7], got [28]"),
        (np.full((4, OUTPUTS), np.nan, np.float32), ValueError, "be finite, got 28 values that are not"),
        (np.full((4, OUTPUTS), np.inf, np.float16), ValueError, "be finite, got 28 values that are not"),
        (np.full((4, OUTPUTS), 0x7FC0, np.uint16), ValueError, "be finite, got 28 values that are not"),
    ],
)  # fmt: skip
def test_reply(model: EdgeModel, given: Any, error: type[Exception], message: str) -> None:
    with (
        model.mix(images(4)) as request,
        pytest.raises(error, match=re.escape(f"MixedRequest.classify: reply must {message}")),
    ):
        request.classify(given)


@pytest.mark.parametrize(
    ("threads", "error", "message"),
    [
        (0, ValueError, "be between 1 and the 4 cores of this machine, got 0"),
        (-1, ValueError, "be between 1 and the 4 cores of this machine, got -1"),
        (5, ValueError, "be between 1 and the 4 cores of this machine, got 5"),
        (2**40, ValueError, "be between 1 and the 4 cores of this machine, got 1099511627776"),
        (1.0, TypeError, "be an int, got float"),
        (True, TypeError, "be an int, got bool"),
        ("2", TypeError, "be an int, got str"),
    ],
)
def test_threads(threads: Any, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    with pytest.raises(error, match=re.escape(f"EdgeModel: threads must {message}")):
        EdgeModel(Bundle.parse(bundle_bytes()), threads=threads)


def test_threads_default_to_the_cores() -> None:
    assert EdgeModel(Bundle.parse(bundle_bytes()))._threads == os.cpu_count()


@pytest.mark.parametrize(
    ("decoys", "error", "message"),
    [
        (images(4).astype(float), TypeError, "decoys must have dtype uint8"),
        (images(0), ValueError, "decoys must have shape [N, 12, 10, 3]"),
        (images(2)[:, 1:], ValueError, "decoys must have shape [N, 12, 10, 3]"),
    ],
)
def test_decoys(decoys: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(f"EdgeModel: {message}")):
        EdgeModel(Bundle.parse(bundle_bytes()), decoys=decoys)


def test_a_path_is_no_bundle() -> None:
    with pytest.raises(TypeError, match=r"bundle must be a Bundle \(EdgeModel.load reads a file\), got str"):
        EdgeModel("edge.safetensors")  # type: ignore[arg-type]


def test_errors_come_before_the_key(model: EdgeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facemix_ops.edge.model.Key", lambda *_: pytest.fail("a key was drawn"))
    for arguments in ({"images": images(5)}, {"images": images(4), "out": frozen()}):
        with pytest.raises(ValueError, match=r"EdgeModel\.mix"):
            model.mix(**arguments)
