"""A request as bytes. Protobuf copies large tensors several times, into fresh memory each time; here they are copied
once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .names import FEATURES, SCALES
from .open_inference_pb2 import ModelInferRequest
from .tensors import checked

__all__ = ["packed_features"]

#: What stands before each entry of `raw_input_contents`: the field's number, and that a length follows.
RAW = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER << 3 | 2


def packed_features(
    name: str, version: str, values: NDArray[Any], datatype: str, scales: NDArray[np.float32] | None = None
) -> bytes:
    """A serialised request for a model, with mixed features [B, C, ...] of `datatype`, and their scales [B, C] where
    that is INT8.

    Raises:
        ValueError, WireError: see `checked`; ValueError if there are scales and the datatype is not INT8, or there
            are none and it is.
    """
    if (datatype == "INT8") != (scales is not None):
        raise ValueError(f"packed_features: scales must be given with INT8 and with nothing else, got {datatype}")
    request = ModelInferRequest(model_name=name, model_version=version)
    contents: list[bytes | memoryview] = []
    tensors = [(FEATURES, values, datatype)] + ([] if scales is None else [(SCALES, scales, "FP32")])
    for tensor, array, kind in tensors:
        plain = checked(tensor, array, kind)
        request.inputs.add(name=tensor, datatype=kind, shape=plain.shape)
        contents += [bytes((RAW,)), _varint(plain.nbytes), plain.reshape(-1).view(np.uint8).data]
    # Messages of protobuf may be written one behind the other: the fields add up.
    return b"".join([request.SerializeToString(), *contents])


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    result = bytearray()
    while number > 127:
        result.append(number & 127 | 128)
        number >>= 7
    result.append(number)
    return bytes(result)
