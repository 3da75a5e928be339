"""What can go wrong between edge and cloud."""

from facemix.errors import FacemixError

__all__ = ["CloudError", "CloudRefused", "CloudReplyError", "CloudUnreachable"]


class CloudError(FacemixError):
    """The cloud did not answer as it should. The base of the others."""


class CloudUnreachable(CloudError):
    """No answer: wrong address, no server, or too slow."""


class CloudRefused(CloudError):
    """The server answered with an error: it does not serve this model, or does not accept the request."""


class CloudReplyError(CloudError):
    """The server answered with something that is not what it must be."""
