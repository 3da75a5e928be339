"""Arrays through the protocol's messages, and everything that a message can get wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from facemix.wire import DATATYPES, HEADER_BYTES, WireError, get_features, get_outputs, parse, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.tensors import checked
from google.protobuf.message import DecodeError
from wire_requests import put_features

SHAPE = (3, 4)


def request(array: np.ndarray | None = None, datatype: str = "FP32") -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="middle")
    values = np.ones((2, *SHAPE), DATATYPES[datatype]) if array is None else array
    put_features(message, values, datatype, np.ones((len(values), 3), np.float32) if datatype == "INT8" else None)
    return message


def over_bytes(message: pb.ModelInferRequest) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(message.SerializeToString())


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP32", torch.float32), ("FP16", torch.float16), ("BF16", torch.bfloat16)]
)
def test_floats_over_bytes_and_back(datatype: str, dtype: torch.dtype) -> None:
    values = torch.randn(5, *SHAPE).to(dtype)
    array = (values.view(torch.uint16) if dtype == torch.bfloat16 else values).numpy()
    back, name = get_features(over_bytes(request(array, datatype)), SHAPE)
    assert (back.dtype, name) == (np.float32, datatype)
    np.testing.assert_array_equal(back, values.float().numpy())
    back[:] = 0  # the cloud's PyTorch wants memory that it may write to

    answer = pb.ModelInferResponse()
    outputs = torch.randn(5, 7)
    put_outputs(answer, outputs.numpy(), datatype)
    assert answer.outputs[0].datatype == datatype
    np.testing.assert_array_equal(get_outputs(answer, 5, (7,)), outputs.to(dtype).float().numpy())


def test_int8_comes_with_scales_and_is_answered_in_fp32() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-127, 128, (5, *SHAPE), dtype=np.int8)
    scales = rng.random((5, 3), np.float32)
    message = pb.ModelInferRequest()
    put_features(message, values, "INT8", scales)
    back, name = get_features(over_bytes(message), SHAPE)
    assert (back.dtype, name) == (np.float32, "INT8")
    np.testing.assert_array_equal(back, values.astype(np.float32) * scales[:, :, None])
    answer = pb.ModelInferResponse()
    put_outputs(answer, np.ones((5, 7), np.float32), "INT8")
    assert answer.outputs[0].datatype == "FP32"


def test_the_order_of_tensors_does_not_matter() -> None:
    message = request(datatype="INT8")
    turned = pb.ModelInferRequest(
        inputs=message.inputs[::-1], raw_input_contents=list(reversed(message.raw_input_contents))
    )
    np.testing.assert_array_equal(get_features(turned, SHAPE)[0], get_features(message, SHAPE)[0])


def test_layouts_do_not_matter() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 4, 3).transpose(0, 2, 1)
    for values in (array, array.astype(">f4"), array[::-1]):
        np.testing.assert_array_equal(get_features(request(values), SHAPE)[0], values)


def edit(change: Callable[[pb.ModelInferRequest], object], datatype: str = "FP32") -> pb.ModelInferRequest:
    message = request(datatype=datatype)
    change(message)
    return message


def raw(values: np.ndarray, index: int = 0) -> Callable[[pb.ModelInferRequest], object]:
    def change(message: pb.ModelInferRequest) -> None:
        message.raw_input_contents[index] = values.tobytes()

    return change


def first(name: str, value: object) -> Callable[[pb.ModelInferRequest], object]:
    return lambda message: setattr(message.inputs[0], name, value)


def shape(*sizes: int, index: int = 0) -> Callable[[pb.ModelInferRequest], object]:
    def change(message: pb.ModelInferRequest) -> None:
        message.inputs[index].shape[:] = sizes

    return change


def scales(values: np.ndarray) -> Callable[[pb.ModelInferRequest], object]:
    def change(message: pb.ModelInferRequest) -> None:
        shape(*values.shape, index=1)(message)
        raw(values, 1)(message)

    return change


NAN = np.full((2, *SHAPE), 1, np.float32)
NAN[1, 2, 3] = np.nan
INFINITE = np.where(np.isnan(NAN), -np.inf, NAN).astype(np.float16)
BRAIN = (NAN.view(np.uint32) >> 16).astype(np.uint16)
HUGE = np.full((2, 3), 3e38, np.float32)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (pb.ModelInferRequest(), "inputs must be mixed_features, got 0 tensors"),
        (edit(lambda m: m.inputs.add(name="more")), "inputs must be mixed_features, got 2 tensors"),
        (edit(first("name", "x")), "an input must be called 'mixed_features', got 'x'"),
        (edit(first("name", "x" * 999)), "got '" + "x" * 40 + "...'"),
        (edit(first("datatype", "INT8")), "must have datatype FP32 or FP16 or BF16, got 'INT8'"),
        (edit(first("datatype", "")), "must have datatype FP32 or FP16 or BF16, got ''"),
        (edit(shape(2, 3, 5)), "input mixed_features must have shape [-1, 3, 4], got [2, 3, 5]"),
        (edit(shape(0, 3, 4)), "must have shape [-1, 3, 4], got [0, 3, 4]"),
        (edit(shape(-1, 3, 4)), "must have shape [-1, 3, 4], got [-1, 3, 4]"),
        (edit(shape(24)), "must have shape [-1, 3, 4], got [24]"),
        (edit(shape()), "must have shape [-1, 3, 4], got []"),
        (edit(shape(3, 3, 4)), "of shape [3, 3, 4] and datatype FP32 must have 144 bytes, got 96"),
        (edit(shape(2**62, 3, 4)), "must have 221360928884514619392 bytes, got 96"),
        (edit(raw(np.ones(23, np.float32))), "must have 96 bytes, got 92"),
        (edit(raw(np.ones(0))), "must have 96 bytes, got 0"),
        (edit(first("datatype", "FP16")), "must have 48 bytes, got 96"),
        (edit(lambda m: m.raw_input_contents.append(b"")), "must have an entry for each of 1 inputs, got 2"),
        (edit(lambda m: m.raw_input_contents.pop()), "must have an entry for each of 1 inputs, got 0"),
        (edit(lambda m: m.inputs[0].contents.fp32_contents.append(1)), "must come as raw contents"),
        (edit(raw(NAN)), "input mixed_features must be finite, got 1 values that are not"),
        (edit(raw(INFINITE), "FP16"), "must be finite, got 1 values that are not"),
        (edit(raw(BRAIN), "BF16"), "must be finite, got 1 values that are not"),
        (edit(first("datatype", "FP32"), "INT8"), "input mixed_features must have datatype INT8, got 'FP32'"),
        (edit(lambda m: setattr(m.inputs[1], "name", "s"), "INT8"), "must be mixed_features, got 2 tensors"),
        (edit(scales(np.ones((2, 4), np.float32)), "INT8"), "mixed_scales must have shape [-1, 3], got [2, 4]"),
        (edit(scales(np.ones((3, 3), np.float32)), "INT8"), "must have a row for each of mixed_features, 2, got 3"),
        (edit(scales(np.full((2, 3), np.nan, np.float32)), "INT8"), "mixed_scales must be finite, got 6 values"),
        (edit(scales(np.ones((2, 3))), "INT8"), "mixed_scales of shape [2, 3] and datatype FP32 must have 24 bytes"),
    ],
)
def test_malformed(message: pb.ModelInferRequest, text: str) -> None:
    with pytest.raises(WireError, match=re.escape(text)):
        get_features(message, SHAPE)


def field(number: int, content: bytes) -> bytes:
    """A field with a length, as protobuf writes it."""
    size = len(content)
    return bytes((number << 3 | 2, *(size >> shift & 127 | 128 for shift in (0, 7, 14)), size >> 21)) + content


SIZES = field(5, field(3, b"\x01" * HEADER_BYTES))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x2a\x00" * HEADER_BYTES, id="tensors"),
        pytest.param(b"\x3a\x00" * HEADER_BYTES, id="raw contents"),
        pytest.param(b"\x32\x00" * HEADER_BYTES, id="outputs"),
        pytest.param(field(5, b"\x22\x00" * HEADER_BYTES), id="parameters of a tensor"),
        pytest.param(field(5, field(5, b"\x42\x00" * HEADER_BYTES)), id="contents of a tensor"),
        pytest.param(SIZES, id="sizes"),
        pytest.param(field(7, bytes(10**6)) + SIZES, id="behind large contents"),
        pytest.param(b"\x78\x01" * HEADER_BYTES, id="unknown numbers"),
        pytest.param(b"\x7d\x00\x00\x00\x00\x79" + bytes(8) + SIZES, id="unknown fields of 4 and of 8 bytes"),
    ],
)
@pytest.mark.parametrize("kind", [pb.ModelInferRequest, pb.ModelInferResponse, pb.ModelMetadataResponse])
def test_little_comes_besides_raw_contents(data: bytes, kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Protobuf would make gigabytes of such megabytes; it is not asked."""
    monkeypatch.setattr(kind, "FromString", lambda data: pytest.fail("it was asked"), raising=False)
    with pytest.raises(WireError, match="a message must have 16384 bytes at most besides raw contents, got more"):
        parse(kind, data)


def test_the_header_may_be_of_its_size_and_contents_of_any() -> None:
    message = request(np.ones((4000, *SHAPE), np.float32))
    message.parameters["a"].string_param = "a" * (HEADER_BYTES - 200)
    assert parse(pb.ModelInferRequest, message.SerializeToString()) == message
    answer = pb.ModelInferResponse()
    put_outputs(answer, np.ones((4000, 7), np.float32), "FP32")
    assert parse(pb.ModelInferResponse, answer.SerializeToString()) == answer


@pytest.mark.parametrize(
    "field_of_some_kind",
    [
        pytest.param(b"\x2b", id="a group"),
        pytest.param(b"\x2f", id="no kind at all"),
        pytest.param(field(7, b"")[:-1] + b"\x7f", id="contents beyond the end"),
        pytest.param(b"\x3a" + b"\x80" * 9 + b"\x02", id="a size that 64 bits do not hold"),
        pytest.param(b"\x3a" + b"\x80" * 10 + b"\x01", id="a size that does not end"),
        pytest.param(b"\x80", id="a field that does not end"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(field_of_some_kind: bytes) -> None:
    with pytest.raises(DecodeError):
        parse(pb.ModelInferRequest, field(7, bytes(HEADER_BYTES)) + field_of_some_kind)


def test_scales_that_leave_nothing_finite() -> None:
    message = pb.ModelInferRequest()
    put_features(message, np.full((2, *SHAPE), 127, np.int8), "INT8", HUGE)
    with pytest.raises(WireError, match="mixed_scales must leave mixed_features finite"):
        get_features(message, SHAPE)


def test_malformed_response_says_output() -> None:
    with pytest.raises(WireError, match="outputs must be mixed_outputs, got 0 tensors"):
        get_outputs(pb.ModelInferResponse(), 1, (7,))


def test_a_response_must_have_the_rows_that_were_sent() -> None:
    answer = pb.ModelInferResponse()
    put_outputs(answer, np.ones((5, 7), np.float32), "FP32")
    with pytest.raises(WireError, match=re.escape("mixed_outputs must have shape [4, 7], got [5, 7]")):
        get_outputs(answer, 4, (7,))


@pytest.mark.parametrize(("array", "datatype"), [(NAN, "FP32"), (INFINITE, "FP16"), (BRAIN, "BF16")])
def test_refuses_to_send_what_is_not_finite(array: np.ndarray, datatype: str) -> None:
    with pytest.raises(WireError, match=f"mixed_features must be finite in {datatype}, got 1 values that are not"):
        request(array, datatype)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_refuses_to_answer_beyond_the_datatype(datatype: str) -> None:
    with pytest.raises(WireError, match=f"mixed_outputs must be finite in {datatype}, got 2 values that are not"):
        put_outputs(pb.ModelInferResponse(), np.full((1, 2), 3.4e38, np.float32), datatype)


def test_no_bits_of_a_nan_round_to_a_number() -> None:
    bits = np.array([[0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF]], np.uint32)
    with pytest.raises(WireError, match="mixed_outputs must be finite in BF16, got 4 values that are not"):
        put_outputs(pb.ModelInferResponse(), bits.view(np.float32), "BF16")


def test_refuses_what_does_not_go_together() -> None:
    array = np.ones((2, *SHAPE), np.float32)
    with pytest.raises(ValueError, match="datatype must be one of FP32, FP16, BF16, INT8, got 'FP64'"):
        checked("x", array, "FP64")
    with pytest.raises(ValueError, match="x must have dtype float16 for FP16, got float32"):
        checked("x", array, "FP16")


def test_lives_in_one_process_with_tritonclient() -> None:
    from tritonclient.grpc import service_pb2 as service

    ours = request()
    ours.parameters["a"].int64_param = 3
    theirs = service.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.inputs[0].name == "mixed_features"
    assert pb.ModelInferRequest.FromString(theirs.SerializeToString()) == ours
    for name, message in pb.DESCRIPTOR.message_types_by_name.items():
        numbers = {field.name: field.number for field in service.DESCRIPTOR.message_types_by_name[name].fields}
        for field in message.fields:
            # `properties` is in the specification, and not in every release of tritonclient.
            assert numbers.get(field.name, field.number) == field.number


def test_an_answer_in_bfloat16_is_rounded_as_pytorch_rounds() -> None:
    values = np.arange(0x3F800000, 0x3F840000, 0x4000, dtype=np.uint32).view(np.float32)  # every fourth is a tie
    response = pb.ModelInferResponse()
    put_outputs(response, values[:, None], "BF16")
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.int16), expected)
