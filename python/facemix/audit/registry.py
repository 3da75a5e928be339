"""The attacks that come with the package, in the order of reports."""

from __future__ import annotations

from .attack import Attack
from .attacks.attributes import Attributes
from .attacks.group_matching import GroupMatching
from .attacks.identity import Identity
from .attacks.key_recovery import KeyRecovery
from .attacks.look import Look
from .attacks.membership import Membership
from .attacks.output_side import OutputSide
from .attacks.reconstruction import Reconstruction

__all__ = ["ATTACKS"]

ATTACKS: tuple[type[Attack], ...] = (
    Look,
    KeyRecovery,
    GroupMatching,
    Identity,
    Attributes,
    Reconstruction,
    Membership,
    OutputSide,
)
