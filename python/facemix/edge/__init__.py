"""The edge: mixes with a fresh private key, asks the cloud, un-mixes. It imports nothing of the cloud."""

from .edge import Answer, Edge
from .errors import CloudError, CloudRefused, CloudReplyError, CloudUnreachable
from .transport import CloudClient

__all__ = [
    "Answer",
    "CloudClient",
    "CloudError",
    "CloudRefused",
    "CloudReplyError",
    "CloudUnreachable",
    "Edge",
]
