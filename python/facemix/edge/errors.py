"""What can go wrong between edge and cloud."""

from __future__ import annotations

from facemix.errors import FacemixError

__all__ = [
    "CloudDenied",
    "CloudError",
    "CloudMismatch",
    "CloudOverloaded",
    "CloudRefused",
    "CloudReplyError",
    "CloudTimeout",
    "CloudUnreachable",
]


class CloudError(FacemixError):
    """The cloud did not answer as it should. The base of the others."""


class CloudUnreachable(CloudError):
    """No answer: wrong address, no server, or the connection broke, as often as it was tried."""


class CloudOverloaded(CloudError):
    """The server has too much to do, as often as it was asked.

    Attributes:
        retry_after: seconds to wait before asking again, by the server's own account; None where it did not say,
            infinite where it does not want to be asked again.
    """

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class CloudTimeout(CloudError):
    """The deadline of the call passed."""


class CloudRefused(CloudError):
    """The server answered with an error: it does not serve this model, or does not accept the request."""


class CloudDenied(CloudRefused):
    """The server does not accept the credentials, or wants some."""


class CloudMismatch(CloudError):
    """The server holds another model than the middle of this edge's network, or takes other datatypes."""


class CloudReplyError(CloudError):
    """The server answered with something that is not what it must be."""
