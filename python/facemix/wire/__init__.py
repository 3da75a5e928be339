"""The wire between edge and cloud: the Open Inference Protocol v2 over gRPC. Both sides know this, and not
each other.
"""

from .tensors import COMPUTE_NS, TensorSpec, WireError, get_tensor, put_tensor

__all__ = ["COMPUTE_NS", "TensorSpec", "WireError", "get_tensor", "put_tensor"]
