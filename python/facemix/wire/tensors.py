"""NumPy arrays in and out of protocol messages, as raw contents, with every field checked on the way in.

A request and a response hold tensors alike: a list of descriptions (name, datatype, shape) and a list of
bytes in the same order. `put_tensor` and `get_tensor` serve both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .open_inference_pb2 import ModelInferRequest, ModelInferResponse

__all__ = ["COMPUTE_NS", "DATATYPES", "TensorSpec", "WireError", "get_tensor", "put_tensor"]

#: Datatypes that we send and accept. The protocol is little-endian.
DATATYPES: dict[str, np.dtype] = {"FP32": np.dtype("<f4"), "FP16": np.dtype("<f2")}

#: Name of the response parameter with the time that the cloud computed, in nanoseconds.
COMPUTE_NS = "compute_ns"

Message = ModelInferRequest | ModelInferResponse


class WireError(ValueError):
    """A tensor that cannot go into a message, or came in one and is not what it must be. The text never
    quotes values.
    """


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor must look like: its name, and its shape with -1 where any size of at least 1 will do."""

    name: str
    shape: tuple[int, ...]


def put_tensor(message: Message, name: str, array: NDArray[np.floating], datatype: str = "FP32") -> None:
    """Append `array` to `message` as `datatype`; it is converted, and copied once.

    Raises:
        ValueError: if there is no such datatype here.
        WireError: if a value of `array` is not finite in it.
    """
    if datatype not in DATATYPES:
        raise ValueError(f"put_tensor: datatype must be one of {sorted(DATATYPES)}, got {datatype!r}")
    with np.errstate(over="ignore"):  # an overflow is the infinity that the next line finds
        values = np.ascontiguousarray(array, dtype=DATATYPES[datatype])
    if not np.isfinite(values).all():
        raise WireError(f"{name} must be finite in {datatype}")
    if isinstance(message, ModelInferRequest):
        message.inputs.add(name=name, datatype=datatype, shape=values.shape)
        message.raw_input_contents.append(values.tobytes())
    else:
        message.outputs.add(name=name, datatype=datatype, shape=values.shape)
        message.raw_output_contents.append(values.tobytes())


def get_tensor(message: Message, spec: TensorSpec) -> NDArray[np.floating]:
    """Return the one tensor of `message`, which must suit `spec`; read-only, float32 or float16, not copied.

    Raises:
        WireError: if the message holds another number of tensors, or the tensor's name, datatype, shape or
            number of bytes is wrong, or a value is not finite.
    """
    if isinstance(message, ModelInferRequest):
        kind, tensors, raw = "input", list(message.inputs), message.raw_input_contents
    else:
        kind, tensors, raw = "output", list(message.outputs), message.raw_output_contents
    if len(tensors) != 1:
        raise WireError(f"{kind}s must be one tensor, got {len(tensors)}")
    tensor = tensors[0]
    if tensor.name != spec.name:
        raise WireError(f"{kind} must be called {spec.name!r}, got {_short(tensor.name)}")
    if tensor.HasField("contents"):
        raise WireError(f"{kind} {spec.name} must come as raw contents, got `contents`")
    if len(raw) != 1:
        raise WireError(f"raw_{kind}_contents must have one entry, got {len(raw)}")
    if tensor.datatype not in DATATYPES:
        raise WireError(
            f"{kind} {spec.name} must have a datatype of {sorted(DATATYPES)}, got {_short(tensor.datatype)}"
        )
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape) or any(
        size < 1 if rule == -1 else size != rule for size, rule in zip(shape, spec.shape, strict=True)
    ):
        raise WireError(f"{kind} {spec.name} must have shape {list(spec.shape)}, got {list(shape)[:16]}")
    dtype = DATATYPES[tensor.datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(raw[0]) != expected:
        raise WireError(
            f"{kind} {spec.name} of shape {list(shape)} and datatype {tensor.datatype} "
            f"must have {expected} bytes, got {len(raw[0])}"
        )
    values = np.frombuffer(raw[0], dtype=dtype).reshape(shape)
    if not np.isfinite(values).all():
        bad = np.count_nonzero(~np.isfinite(values))
        raise WireError(f"{kind} {spec.name} must be finite, got {bad} values that are not")
    return values


def _short(text: str) -> str:
    """Quote what a stranger sent, without letting them write pages into our errors."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
