"""The network behind a protection that is not the mix, as an experiment trains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from facemix.data import MEAN, STD

from .settings import ModelSettings, ProtectionSettings

__all__ = ["PROTECTED", "protected_options", "protected_weights"]

#: The edge has the protection alone, and the cloud the whole network.
PROTECTED = ModelSettings("protected", pre=1, post=1)


def protected_options(
    protection: ProtectionSettings, network: str, options: Mapping[str, Any], channels: int
) -> dict[str, Any]:
    """What `models.build` makes such a network of.

    Args:
        protection: any but the mix.
        network, options: what `models.build` makes the network in the cloud of.
        channels: of images.
    """
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "noise": {"sigma": protection.sigma, "std": STD},
        "blur": {"size": protection.size},
        "anonymizer": {"channels": channels, "width": protection.width, "mean": MEAN, "std": STD},
    }
    return {
        "protection": protection.name,
        "settings": settings[protection.name],
        "network": network,
        "options": dict(options),
    }


def protected_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the network, by their names behind a protection."""
    return {f"network.{name}": weight for name, weight in weights.items()}
