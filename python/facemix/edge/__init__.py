"""The edge: mixes with a fresh private key, asks the cloud, un-mixes. It imports nothing of the cloud, and needs no
PyTorch: NumPy, gRPC and the edge's half of a network, such as `facemix_ops.edge.EdgeModel`. (`load_half` reads halves
that do need it as well.)

::

    with Client(load_half("edge.safetensors"), "host:port") as client:
        answer = client.classify(images)             # uint8 [N, H, W, C] -> scores, labels, names, cost
        for prediction in client.stream(camera):     # uint8 [H, W, C] each
            ...
"""

try:
    import google.protobuf  # noqa: F401
    import grpc  # noqa: F401
except ModuleNotFoundError as error:
    error.add_note("facemix.edge needs: pip install 'facemix[edge]'")
    raise

from .answer import Answer, Cost, Prediction
from .async_client import AsyncClient
from .blinded_half import BlindedHalf
from .blinders import Blinders, BlindersError
from .client import Client
from .errors import (
    CloudDenied,
    CloudError,
    CloudMismatch,
    CloudOverloaded,
    CloudRefused,
    CloudReplyError,
    CloudTimeout,
    CloudUnreachable,
)
from .loading import load_half
from .security import Security

__all__ = [
    "Answer",
    "AsyncClient",
    "BlindedHalf",
    "Blinders",
    "BlindersError",
    "Client",
    "CloudDenied",
    "CloudError",
    "CloudMismatch",
    "CloudOverloaded",
    "CloudRefused",
    "CloudReplyError",
    "CloudTimeout",
    "CloudUnreachable",
    "Cost",
    "Prediction",
    "Security",
    "load_half",
]
