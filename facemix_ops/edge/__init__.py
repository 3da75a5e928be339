"""The edge half without PyTorch: NumPy and the compiled kernels.

::

    model = EdgeModel.load("edge.safetensors")
    with model.mix(images) as request:           # uint8 [N, H, W, C]
        reply = send(request.payload)            # float32, float16, bfloat16 or int8, as one block
        result = request.classify(reply)         # scores and labels, in the order of the images
    # the key's memory is zeroed here, whatever happened

``python -m facemix_ops.edge edge.safetensors`` says what a bundle holds. That needs no kernels, which are loaded when
`EdgeModel` or `MixedRequest` is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bundle import Bundle, BundleError
from .result import Result

if TYPE_CHECKING:
    from .model import EdgeModel
    from .request import MixedRequest

__all__ = ["Bundle", "BundleError", "EdgeModel", "MixedRequest", "Result"]


def __getattr__(name: str) -> Any:
    if name not in ("EdgeModel", "MixedRequest"):
        raise AttributeError(f"module 'facemix_ops.edge' has no attribute {name!r}")
    from . import model

    return getattr(model, name)
