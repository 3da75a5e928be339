"""Requests packed by hand are those that protobuf writes."""

from __future__ import annotations

import numpy as np
import pytest
from facemix.wire import DATATYPES, WireError, packed_features
from facemix.wire import open_inference_pb2 as pb
from wire_requests import put_features

#: Bytes of a row below and above what one, two and three bytes of a length can say.
WIDTHS = [1, 31, 32, 33, 127, 128, 4095, 4096, 16383, 16384, 524287, 524288]


def by_protobuf(values: np.ndarray, datatype: str, scales: np.ndarray | None) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="middle", model_version="3")
    put_features(message, values, datatype, scales)
    return message


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("datatype", DATATYPES)
def test_equals_protobuf(width: int, datatype: str) -> None:
    rng = np.random.default_rng(width)
    values = rng.integers(0, 100, (2, width)).astype(DATATYPES[datatype])
    scales = rng.random((2, width), np.float32) if datatype == "INT8" else None
    packed = packed_features("middle", "3", values, datatype, scales)
    message = by_protobuf(values, datatype, scales)
    assert pb.ModelInferRequest.FromString(packed) == message
    assert len(packed) == message.ByteSize()


def test_layouts_do_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 4, 3).transpose(0, 2, 1)
    for values in (array, array.astype(">f4"), array[::-1], array[:1], array[:, ::2, 1:]):
        packed = pb.ModelInferRequest.FromString(packed_features("middle", "3", values, "FP32"))
        assert packed == by_protobuf(values, "FP32", None)


def test_what_it_refuses() -> None:
    values = np.ones((2, 3), np.float32)
    with pytest.raises(WireError, match="mixed_features must be finite in FP32, got 1 values"):
        packed_features("middle", "3", np.array([[1, np.nan]], np.float32), "FP32")
    with pytest.raises(WireError, match="mixed_scales must be finite in FP32"):
        packed_features("middle", "3", np.ones((1, 1), np.int8), "INT8", np.full((1, 1), np.inf, np.float32))
    with pytest.raises(ValueError, match="mixed_features must have dtype float16 for FP16, got float32"):
        packed_features("middle", "3", values, "FP16")
    for datatype, scales in (("INT8", None), ("FP32", values)):
        with pytest.raises(ValueError, match="scales must be given with INT8 and with nothing else"):
            packed_features("middle", "3", values, datatype, scales)
