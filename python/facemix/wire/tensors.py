"""NumPy arrays in and out of protocol messages, as raw contents, with every field checked on the way in.

A request and a response hold tensors alike: a list of descriptions (name, datatype, shape) and a list of bytes in the
same order. `checked` and `get_tensors` serve both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .open_inference_pb2 import ModelInferRequest, ModelInferResponse

__all__ = [
    "DATATYPES",
    "DATATYPE_OF",
    "FLOATS",
    "Message",
    "TensorSpec",
    "WireError",
    "checked",
    "get_tensors",
]

#: Datatypes that we send and accept, and the arrays that hold them; NumPy has no bfloat16, uint16 holds its bits. The
#: protocol is little-endian.
DATATYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "INT8": np.dtype("i1"),
}
FLOATS = ("FP32", "FP16", "BF16")

#: The datatype of each wire dtype of `facemix_ops.edge`.
DATATYPE_OF = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}

BF16_INFINITY = 0x7F80  # all bits of the exponent: infinities and NaN

Message: TypeAlias = ModelInferRequest | ModelInferResponse


class WireError(ValueError):
    """A tensor that cannot go into a message, or came in one and is not what it must be. The text never quotes
    values.
    """


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor must look like.

    Attributes:
        name: what it is called.
        shape: with -1 where any size of at least 1 will do.
        datatypes: those it may have.
    """

    name: str
    shape: tuple[int, ...]
    datatypes: tuple[str, ...] = FLOATS


def checked(name: str, array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """`array` as it goes over the wire: little-endian and contiguous; a copy only where it is not so already.

    Raises:
        ValueError: if there is no such datatype here, or it is not the array's.
        WireError: if a value of `array` is not finite.
    """
    if datatype not in DATATYPES:
        raise ValueError(f"checked: datatype must be one of {', '.join(DATATYPES)}, got {datatype!r}")
    dtype = DATATYPES[datatype]
    if array.dtype.newbyteorder("<") != dtype:
        raise ValueError(f"checked: {name} must have dtype {dtype.name} for {datatype}, got {array.dtype}")
    values = np.ascontiguousarray(array, dtype)
    if bad := _not_finite(values, datatype):
        raise WireError(f"{name} must be finite in {datatype}, got {bad} values that are not")
    return values


def get_tensors(message: Message, specs: Sequence[TensorSpec]) -> list[tuple[NDArray[Any], str]]:
    """The tensors of `message` and their datatypes, in the order of `specs`; read-only and not copied.

    Raises:
        WireError: if the message holds other tensors than those of `specs`, in whatever order, or a tensor's datatype,
            shape or number of bytes is wrong, or a value is not finite.
    """
    if isinstance(message, ModelInferRequest):
        kind, tensors, raw = "input", message.inputs, message.raw_input_contents
    else:
        kind, tensors, raw = "output", message.outputs, message.raw_output_contents
    if len(tensors) != len(specs):
        raise WireError(f"{kind}s must be {', '.join(spec.name for spec in specs)}, got {len(tensors)} tensors")
    if len(raw) != len(tensors):
        raise WireError(f"raw_{kind}_contents must have an entry for each of {len(tensors)} {kind}s, got {len(raw)}")
    places = {tensor.name: index for index, tensor in enumerate(tensors)}
    result = []
    for spec in specs:
        if spec.name not in places:
            raise WireError(f"an {kind} must be called {spec.name!r}, got {', '.join(map(_short, places))}")
        index = places[spec.name]
        result.append(_get(kind, tensors[index], raw[index], spec))
    return result


def _get(kind: str, tensor: Any, raw: bytes, spec: TensorSpec) -> tuple[NDArray[Any], str]:
    what = f"{kind} {spec.name}"
    if tensor.HasField("contents"):
        raise WireError(f"{what} must come as raw contents, got `contents`")
    if tensor.datatype not in spec.datatypes:
        raise WireError(f"{what} must have datatype {' or '.join(spec.datatypes)}, got {_short(tensor.datatype)}")
    if len(tensor.shape) != len(spec.shape) or any(
        size < 1 if rule == -1 else size != rule for size, rule in zip(tensor.shape, spec.shape, strict=True)
    ):
        raise WireError(f"{what} must have shape {list(spec.shape)}, got {tensor.shape[:16]}")
    shape = tuple(tensor.shape)
    dtype = DATATYPES[tensor.datatype]
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise WireError(
            f"{what} of shape {list(shape)} and datatype {tensor.datatype} must have {expected} bytes, got {len(raw)}"
        )
    values = np.frombuffer(raw, dtype).reshape(shape)
    if bad := _not_finite(values, tensor.datatype):
        raise WireError(f"{what} must be finite, got {bad} values that are not")
    return values, tensor.datatype


def _not_finite(values: NDArray[Any], datatype: str) -> int:
    """How many values are infinite or no number."""
    if datatype == "INT8":
        return 0
    good = (values & BF16_INFINITY) != BF16_INFINITY if datatype == "BF16" else np.isfinite(values)
    return 0 if good.all() else int(np.count_nonzero(~good))


def _short(text: str) -> str:
    """Quote what a stranger sent, without letting them write pages into our errors."""
    return repr(text if len(text) <= 40 else text[:40] + "...")
