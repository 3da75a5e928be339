"""Why a call is not answered: what the caller is told, and what is counted."""

from __future__ import annotations

import grpc

from facemix.errors import FacemixError

__all__ = ["Refusal"]


class Refusal(FacemixError):
    """A call that ends with a status other than OK. Its text goes to the caller, and never quotes a value.

    Attributes:
        code: the status.
        reason: one word or two, for metrics and logs.
        retry_ms: when to try again, in milliseconds; None where trying again does not help.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, text: str, retry_ms: int | None = None) -> None:
        super().__init__(text)
        self.code, self.reason, self.retry_ms = code, reason, retry_ms
