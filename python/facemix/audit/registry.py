"""The attacks that come with the package, in the order of reports."""

from __future__ import annotations

from .attack import Attack
from .attacks.group_matching import GroupMatching
from .attacks.key_recovery import KeyRecovery
from .attacks.look import Look
from .attacks.membership import Membership

__all__ = ["ATTACKS"]

ATTACKS: tuple[type[Attack], ...] = (
    Look,
    KeyRecovery,
    GroupMatching,
    Membership,
)
