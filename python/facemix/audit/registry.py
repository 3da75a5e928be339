"""The attacks that come with the package, in the order of reports.

Importing them must stay cheap: what only a running attack needs, such as scikit-learn, is imported where it runs.
"""

from __future__ import annotations

from .attack import Attack
from .attacks.attributes import Attributes
from .attacks.end_to_end import EndToEnd
from .attacks.group_matching import GroupMatching
from .attacks.identity import Identity
from .attacks.key_recovery import KeyRecovery
from .attacks.known_image import KnownImage
from .attacks.linking import Linking
from .attacks.look import Look
from .attacks.membership import Membership
from .attacks.output_side import OutputSide
from .attacks.pooling import Pooling
from .attacks.reconstruction import Reconstruction

__all__ = ["ATTACKS"]

ATTACKS: tuple[type[Attack], ...] = (
    Look,
    KeyRecovery,
    GroupMatching,
    EndToEnd,
    Pooling,
    KnownImage,
    Linking,
    Identity,
    Attributes,
    Reconstruction,
    Membership,
    OutputSide,
)
