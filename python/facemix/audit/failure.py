"""What counts when an attack raises an error."""

from __future__ import annotations

import logging

from .attack import Attack
from .outcome import Outcome

__all__ = ["PartFailed", "failed"]

LOG = logging.getLogger(__name__)


class PartFailed(Exception):
    """A part of an attack raised an error, and another gave an answer: ``outcome``. It counts, and is not kept."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


def failed(attack: type[Attack], error: Exception) -> Outcome:
    """The outcome of an attack that raised `error`, whose traceback is logged: what is wrong with an attack must
    neither end an audit nor look like safety.
    """
    LOG.error("audit: %s failed", attack.name, exc_info=error)
    return Outcome("not converged", f"It failed: {type(error).__name__}: {error}")
