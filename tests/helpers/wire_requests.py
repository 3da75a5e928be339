"""Requests as protobuf itself packs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from facemix.wire.names import FEATURES, SCALES
from facemix.wire.open_inference_pb2 import ModelInferRequest
from facemix.wire.tensors import checked
from numpy.typing import NDArray


def put_features(
    request: ModelInferRequest, values: NDArray[Any], datatype: str, scales: NDArray[np.float32] | None = None
) -> None:
    """Append mixed features [B, C, ...], and their scales [B, C] where there are any."""
    for name, array, kind in ((FEATURES, values, datatype), (SCALES, scales, "FP32")):
        if array is not None:
            plain = checked(name, array, kind)
            request.inputs.add(name=name, datatype=kind, shape=plain.shape)
            request.raw_input_contents.append(plain.tobytes())
