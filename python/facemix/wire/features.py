"""What the two sides say to each other: mixed features there, mixed outputs back, in one of the datatypes.

INT8 features come with scales, float32 [B, C]: value = integer * scale, for each row and channel. Each row carries its
own, so that rows of different senders can share a batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .names import FEATURES, OUTPUTS, SCALES
from .open_inference_pb2 import ModelInferRequest, ModelInferResponse
from .tensors import FLOATS, TensorSpec, WireError, checked, get_tensors

__all__ = ["as_float32", "get_features", "get_outputs", "put_outputs"]


def get_features(request: ModelInferRequest, shape: tuple[int, ...]) -> tuple[NDArray[np.float32], str]:
    """The features as float32 [B, *shape], and the datatype in which they came.

    Raises:
        WireError: if they, or their scales, are not what they must be.
    """
    if not any(tensor.name == SCALES for tensor in request.inputs[:2]):  # a stranger may send millions
        ((values, datatype),) = get_tensors(request, [TensorSpec(FEATURES, (-1, *shape))])
        return as_float32(values), datatype
    features, scales = (
        TensorSpec(FEATURES, (-1, *shape), ("INT8",)),
        TensorSpec(SCALES, (-1, shape[0]), ("FP32",)),
    )
    (values, datatype), (scale, _) = get_tensors(request, [features, scales])
    if len(scale) != len(values):
        raise WireError(f"input {SCALES} must have a row for each of {FEATURES}, {len(values)}, got {len(scale)}")
    with np.errstate(over="ignore"):
        product = values * scale.reshape(*scale.shape, *(1,) * (len(shape) - 1))
    if not np.isfinite(product).all():
        raise WireError(f"input {SCALES} must leave {FEATURES} finite, got products that are not")
    return product, datatype


def put_outputs(response: ModelInferResponse, values: NDArray[np.float32], datatype: str) -> None:
    """Append the answer to features of `datatype`, in that if it is a float, else in FP32.

    Raises:
        WireError: if a value is not finite in it.
    """
    datatype = datatype if datatype in FLOATS else "FP32"
    with np.errstate(over="ignore"):  # an overflow is the infinity that is found below
        converted = {"FP16": lambda: values.astype(np.float16), "BF16": lambda: _bfloat16(values)}
        outputs = checked(OUTPUTS, converted.get(datatype, lambda: values)(), datatype)
    response.outputs.add(name=OUTPUTS, datatype=datatype, shape=outputs.shape)
    response.raw_output_contents.append(outputs.tobytes())


def get_outputs(response: ModelInferResponse, rows: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The answer as float32 [rows, *shape].

    Raises:
        WireError: if it is not what it must be.
    """
    ((values, _),) = get_tensors(response, [TensorSpec(OUTPUTS, (rows, *shape))])
    return as_float32(values)


def as_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """`values` of FP32, FP16 or BF16 (as the bits in uint16), as float32; a copy, which may be written to."""
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of `values` rounded to nearest, ties to even; what is not finite stays so."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isfinite(values), rounded, bits >> 16).astype(np.uint16)
