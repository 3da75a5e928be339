"""The edge half without PyTorch: NumPy and the compiled kernels.

::

    model = EdgeModel.load("edge.safetensors")
    with model.mix(images) as request:           # uint8 [N, H, W, C]
        reply = send(request.payload)            # float32, float16, bfloat16 or int8, as one block
        result = request.classify(reply)         # scores and labels, in the order of the images
    # the key's memory is zeroed here, whatever happened

``python -m facemix_ops.edge edge.safetensors`` says what a bundle holds.
"""

from .bundle import Bundle, BundleError
from .model import EdgeModel
from .request import MixedRequest
from .result import Result

__all__ = ["Bundle", "BundleError", "EdgeModel", "MixedRequest", "Result"]
