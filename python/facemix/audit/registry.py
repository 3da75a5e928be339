"""The attacks that come with the package, in the order of reports."""

from __future__ import annotations

from .attack import Attack
from .attacks.look import Look
from .attacks.membership import Membership

__all__ = ["ATTACKS"]

ATTACKS: tuple[type[Attack], ...] = (Look, Membership)
