"""A network that runs in the cloud as a whole, behind a layer on the edge that changes the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from facemix.protections import protection as protection_of

from .registry import build, register

__all__ = ["Protected"]


@register("protected")
class Protected(nn.Module):
    """Images [B, C, H, W] -> changed images [B, C, H, W], which the edge sends -> scores of the network, which the
    edge takes as they are.

    Args:
        protection: a name in `facemix.protections.PROTECTIONS`.
        settings: its keyword arguments.
        network: the name of another model.
        options: of that.

    Raises:
        ValueError: if one of them will not do.
    """

    pre_blocks = ("protect",)
    post_blocks = ("output",)

    def __init__(self, protection: str, settings: Mapping[str, Any], network: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.protect = protection_of(protection, settings)
        self.network = build(network, options)
        self.output = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.network(self.protect(x)))
