"""Hypothesis strategies for messages that a stranger may send: valid requests and replies, changed in a few places."""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import numpy as np
from facemix.wire import DATATYPES, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import FEATURES, OUTPUTS, SCALES
from hypothesis import strategies as st
from numpy.typing import NDArray
from wire_requests import put_features

__all__ = ["CANARIES", "canary", "decoded", "mangled_bytes", "replies", "requests"]

Message = TypeVar("Message", pb.ModelInferRequest, pb.ModelInferResponse)

#: Bytes that are finite numbers in every datatype, and how they would look in a text.
CANARY = b"PIXL"
CANARIES = ["PIXL", "5.6698", "56698", "10.62", "17.37", "17.38", "80 73 88", "80, 73, 88"]

SIZES = st.sampled_from([-(2**63), -1, 0, 1, 2, 3, 7, 8, 2**31, 2**32 + 1, 2**62, 2**63 - 1])
NAMES = st.one_of(
    st.sampled_from(["", FEATURES, SCALES, OUTPUTS, "middle", "a" * 5000, "\x00", "☠", "%s{0}"]), st.text(max_size=20)
)
TYPES = st.sampled_from([*DATATYPES, "FP64", "INT32", "BYTES", "", "fp32", "FP32 "])


def canary(count: int) -> bytes:
    """So many bytes of CANARY."""
    return (CANARY * (count // len(CANARY) + 1))[:count]


def _tensors(message: Any) -> Any:
    return message.inputs if isinstance(message, pb.ModelInferRequest) else message.outputs


def _raw(message: Any) -> Any:
    return message.raw_input_contents if isinstance(message, pb.ModelInferRequest) else message.raw_output_contents


@st.composite
def requests(draw: st.DrawFn, name: str, shape: tuple[int, ...], changes: int = 3) -> pb.ModelInferRequest:
    """Features [B, *shape] in any datatype, some of them canaries, then up to so many changes."""
    datatype, rows = draw(st.sampled_from(sorted(DATATYPES))), draw(st.integers(1, 3))
    message = pb.ModelInferRequest(model_name=name, id=draw(st.sampled_from(["", "7", "x" * 200])))
    message.model_version = draw(st.sampled_from(["", "1"]))
    dtype, size = DATATYPES[datatype], (rows, *shape)
    if draw(st.booleans()):
        values = np.frombuffer(canary(int(np.prod(size)) * dtype.itemsize), dtype).reshape(size)
    else:
        values = _numbers(size, datatype)
    scales = np.full((rows, shape[0]), 0.01, np.float32) if datatype == "INT8" else None
    put_features(message, values, datatype, scales)
    for _ in range(draw(st.integers(0, changes))):
        _change(draw, message)
    return message


@st.composite
def replies(draw: st.DrawFn, true: pb.ModelInferResponse, rows: int, shape: tuple[int, ...]) -> pb.ModelInferResponse:
    """The header of `true` with outputs [rows, *shape], then one to three changes."""
    message = pb.ModelInferResponse()
    message.CopyFrom(true)
    del message.outputs[:], message.raw_output_contents[:]
    put_outputs(message, _numbers((rows, *shape), "FP32"), draw(st.sampled_from(["FP32", "FP16", "BF16"])))
    for _ in range(draw(st.integers(1, 3))):
        _change(draw, message)
    return message


@st.composite
def mangled_bytes(draw: st.DrawFn, message: Any) -> bytes:
    """`message` on the wire, with bytes changed, lost or put in, most of them where the structure is."""
    data = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, min(len(data), 160) if draw(st.booleans()) else len(data)))
        junk = draw(st.binary(max_size=4))
        lost = draw(st.integers(0, 4))
        data[place : place + lost] = junk
    return bytes(data)


def decoded(message: pb.ModelInferRequest) -> NDArray[np.float64]:
    """The features of a valid request, read value by value as the protocol says."""
    tensors = {tensor.name: (tensor, raw) for tensor, raw in zip(_tensors(message), _raw(message), strict=True)}
    tensor, raw = tensors[FEATURES]
    if tensor.datatype == "BF16":
        raw = b"".join(bytes([0, 0, *pair]) for pair in zip(raw[::2], raw[1::2], strict=True))
    code, size = {"FP32": ("f", 4), "BF16": ("f", 4), "FP16": ("e", 2), "INT8": ("b", 1)}[tensor.datatype]
    values = np.array(struct.unpack(f"<{len(raw) // size}{code}", raw))
    values = values.reshape(tuple(tensor.shape))
    if SCALES in tensors:
        scales = np.array(struct.unpack(f"<{len(tensors[SCALES][1]) // 4}f", tensors[SCALES][1]))
        values = values * scales.reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
    return values


def _numbers(size: tuple[int, ...], datatype: str) -> NDArray[Any]:
    values = np.random.default_rng(0).standard_normal(size)
    match datatype:
        case "INT8":
            return (values * 30).astype(np.int8)
        case "BF16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        case _:
            return values.astype(DATATYPES[datatype])


def _change(draw: st.DrawFn, message: Any) -> None:
    """One change in place; where there is nothing left to change, none."""
    tensors, raw = _tensors(message), _raw(message)
    kind = draw(
        st.sampled_from(
            ["header", "name", "datatype", "shape", "size", "length", "values", "contents", "drop", "double", "swap"]
        )
    )
    if kind == "header":
        _change_header(draw, message)
    if kind in ("name", "datatype", "shape", "size", "contents") and tensors:
        tensor = tensors[draw(st.integers(0, len(tensors) - 1))]
        match kind:
            case "name":
                tensor.name = draw(NAMES)
            case "datatype":
                tensor.datatype = draw(TYPES)
            case "shape":
                tensor.shape[:] = draw(st.lists(SIZES, max_size=6))
            case "size" if tensor.shape:
                tensor.shape[draw(st.integers(0, len(tensor.shape) - 1))] = draw(SIZES)
            case "contents":
                tensor.contents.fp32_contents.extend(np.frombuffer(CANARY * 3, np.float32))
    if kind in ("length", "values") and raw:
        place = draw(st.integers(0, len(raw) - 1))
        if kind == "length":
            raw[place] = draw(st.sampled_from([b"", raw[place][:-1], raw[place][:-4], raw[place] + b"PIXL"]))
        elif len(raw[place]) >= 4:
            bad = np.array(draw(st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38])), np.float32).tobytes()
            start = draw(st.integers(0, len(raw[place]) - 4))
            raw[place] = raw[place][:start] + bad + raw[place][start + 4 :]
    if kind == "drop":
        rest = draw(st.sampled_from([tensors, raw]))
        if rest:
            del rest[draw(st.integers(0, len(rest) - 1))]
    if kind == "double" and tensors and raw:
        tensors.add().CopyFrom(tensors[0])
        if draw(st.booleans()):
            raw.append(raw[0])
    if kind == "swap" and len(tensors) > 1:
        order = [tensors[1], tensors[0]]
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in order]
        tensors[0].CopyFrom(copies[0])
        tensors[1].CopyFrom(copies[1])
        if draw(st.booleans()) and len(raw) > 1:
            raw[0], raw[1] = raw[1], raw[0]


def _change_header(draw: st.DrawFn, message: Any) -> None:
    match draw(st.sampled_from(["model", "version", "id", "parameter", "output"])):
        case "model":
            message.model_name = draw(NAMES)
        case "version":
            message.model_version = draw(st.one_of(st.sampled_from(["0", "-1", "1.0", "01", "2", " 1"]), NAMES))
        case "id":
            message.id = draw(NAMES)
        case "parameter":
            parameter = message.parameters[draw(NAMES)]
            match draw(st.integers(0, 3)):
                case 0:
                    parameter.int64_param = draw(SIZES)
                case 1:
                    parameter.string_param = draw(NAMES)
                case 2:
                    parameter.double_param = draw(st.floats())
        case "output" if isinstance(message, pb.ModelInferRequest):
            message.outputs.add(name=draw(NAMES))
