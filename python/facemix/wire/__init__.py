"""The wire between edge and cloud: the Open Inference Protocol v2 over gRPC. Both sides know this, and not
each other.
"""

from .features import get_features, get_outputs, put_outputs
from .packing import packed_features
from .parsing import HEADER_BYTES, parse
from .tensors import DATATYPE_OF, DATATYPES, WireError

__all__ = [
    "DATATYPES",
    "DATATYPE_OF",
    "HEADER_BYTES",
    "WireError",
    "get_features",
    "get_outputs",
    "packed_features",
    "parse",
    "put_outputs",
]
