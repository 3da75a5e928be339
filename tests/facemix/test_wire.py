"""Arrays through the protocol's messages, and everything that a message can get wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from facemix.wire import TensorSpec, WireError, get_tensor, put_tensor
from facemix.wire import open_inference_pb2 as pb

SPEC = TensorSpec("features", (-1, 3, 4))


def request(array: np.ndarray | None = None, datatype: str = "FP32") -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="middle")
    put_tensor(message, "features", np.ones((2, 3, 4)) if array is None else array, datatype)
    return message


@pytest.mark.parametrize("kind", [pb.ModelInferRequest, pb.ModelInferResponse])
@pytest.mark.parametrize(("datatype", "dtype"), [("FP32", np.float32), ("FP16", np.float16)])
def test_round_trip_over_bytes(kind: type, datatype: str, dtype: type) -> None:
    array = np.random.default_rng(0).standard_normal((5, 3, 4)).astype(dtype)
    message = kind()
    put_tensor(message, "features", array, datatype)
    back = get_tensor(kind.FromString(message.SerializeToString()), SPEC)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_layouts_do_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 4, 3).transpose(0, 2, 1)
    np.testing.assert_array_equal(get_tensor(request(array), SPEC), array)
    np.testing.assert_array_equal(get_tensor(request(array.astype(">f4")), SPEC), array)
    np.testing.assert_array_equal(get_tensor(request(array[::-1]), SPEC), array[::-1])


def edit(change: Callable[[pb.ModelInferRequest], object], datatype: str = "FP32") -> pb.ModelInferRequest:
    message = request(datatype=datatype)
    change(message)
    return message


def raw(values: np.ndarray) -> Callable[[pb.ModelInferRequest], object]:
    def change(message: pb.ModelInferRequest) -> None:
        message.raw_input_contents[0] = values.tobytes()

    return change


def first(name: str, value: object) -> Callable[[pb.ModelInferRequest], object]:
    return lambda message: setattr(message.inputs[0], name, value)


def shape(*sizes: int) -> Callable[[pb.ModelInferRequest], object]:
    def change(message: pb.ModelInferRequest) -> None:
        del message.inputs[0].shape[:]
        message.inputs[0].shape.extend(sizes)

    return change


NAN = np.full((2, 3, 4), 1, dtype=np.float32)
NAN[1, 2, 3] = np.nan
INFINITE = np.where(np.isnan(NAN), -np.inf, NAN).astype(np.float16)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.ModelInferRequest(), "inputs must be one tensor, got 0"),
        (edit(lambda m: m.inputs.add(name="more")), "inputs must be one tensor, got 2"),
        (edit(first("name", "x")), "input must be called 'features', got 'x'"),
        (edit(first("name", "x" * 999)), "got '" + "x" * 40 + "...'"),
        (
            edit(first("datatype", "INT8")),
            "input features must have a datatype of ['FP16', 'FP32'], got 'INT8'",
        ),
        (edit(first("datatype", "")), "must have a datatype of ['FP16', 'FP32'], got ''"),
        (edit(shape(2, 3, 5)), "input features must have shape [-1, 3, 4], got [2, 3, 5]"),
        (edit(shape(0, 3, 4)), "input features must have shape [-1, 3, 4], got [0, 3, 4]"),
        (edit(shape(-1, 3, 4)), "input features must have shape [-1, 3, 4], got [-1, 3, 4]"),
        (edit(shape(24)), "input features must have shape [-1, 3, 4], got [24]"),
        (edit(shape()), "input features must have shape [-1, 3, 4], got []"),
        (edit(shape(3, 3, 4)), "of shape [3, 3, 4] and datatype FP32 must have 144 bytes, got 96"),
        (edit(shape(2**62, 3, 4)), "must have 221360928884514619392 bytes, got 96"),
        (edit(raw(np.ones(23, np.float32))), "must have 96 bytes, got 92"),
        (edit(raw(np.ones(0))), "must have 96 bytes, got 0"),
        (edit(first("datatype", "FP16")), "must have 48 bytes, got 96"),
        (edit(lambda m: m.raw_input_contents.append(b"")), "raw_input_contents must have one entry, got 2"),
        (edit(lambda m: m.raw_input_contents.pop()), "raw_input_contents must have one entry, got 0"),
        (edit(lambda m: m.inputs[0].contents.fp32_contents.append(1)), "must come as raw contents"),
        (edit(raw(NAN)), "input features must be finite, got 1 values that are not"),
        (edit(raw(INFINITE), "FP16"), "input features must be finite, got 1 values that are not"),
    ],
)
def test_malformed(message: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(WireError, match=re.escape(text)):
        get_tensor(message, SPEC)


def test_malformed_response_says_output() -> None:
    with pytest.raises(WireError, match="outputs must be one tensor, got 0"):
        get_tensor(pb.ModelInferResponse(), SPEC)


def test_refuses_to_send_what_is_not_finite() -> None:
    with pytest.raises(WireError, match="features must be finite in FP32"):
        request(NAN)
    with pytest.raises(WireError, match="features must be finite in FP16"):
        request(np.full((1, 3, 4), 1e6), "FP16")


def test_refuses_an_unknown_datatype() -> None:
    message = r"put_tensor: datatype must be one of \['FP16', 'FP32'\], got 'INT8'"
    with pytest.raises(ValueError, match=message):
        request(datatype="INT8")


def test_lives_in_one_process_with_tritonclient() -> None:
    from tritonclient.grpc import service_pb2 as service

    ours = request()
    ours.parameters["a"].int64_param = 3
    theirs = service.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.inputs[0].name == "features"
    assert pb.ModelInferRequest.FromString(theirs.SerializeToString()) == ours
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        numbers = {field.name: field.number for field in service.DESCRIPTOR.message_types_by_name[name].fields}
        for field in message.fields:
            # `properties` is in the specification, and not in every release of tritonclient.
            assert numbers.get(field.name, field.number) == field.number
