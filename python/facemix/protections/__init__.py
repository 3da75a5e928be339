"""What an edge may do to images in place of the mix, as layers: the baselines that the paper compares itself with.

Each takes images as networks here do, float [B, C, H, W], and gives images of the same shape. None of them needs
another image, so nothing has to be undone when the cloud's answer comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .anonymizer import Anonymizer
from .blur import Blur
from .gaussian import given, repeatable
from .noise import Noise

__all__ = ["PROTECTIONS", "Anonymizer", "Blur", "Noise", "given", "protection", "repeatable"]

#: By name. "plain" sends images as they are: all of the network in the cloud.
PROTECTIONS: dict[str, type[nn.Module]] = {
    "plain": nn.Identity,
    "noise": Noise,
    "blur": Blur,
    "anonymizer": Anonymizer,
}


def protection(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The layer called `name`, of keyword arguments `options`.

    Raises:
        ValueError: if there is no such protection, or it refuses a value.
        TypeError: if it does not know an option.
    """
    if name not in PROTECTIONS:
        raise ValueError(f"protection: name must be one of {', '.join(PROTECTIONS)}, got {name!r}")
    return PROTECTIONS[name](**options)
