"""facemix_ops: fused convolution + group mixing, and un-mixing with the last layer.

Importing this package needs NumPy only. The names below need PyTorch, and load it when they are first used.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .backend import explain
    from .conversion import convert
    from .keys import MixKey
    from .nn import GroupMix, GroupUnmix, MixConv2d, UnmixLinear
    from .ops.act_mix import act_mix
    from .ops.conv_mix import conv_mix
    from .ops.group_mix import group_mix
    from .ops.group_unmix import group_unmix
    from .ops.sample_orthogonal import sample_orthogonal
    from .ops.unmix_linear import unmix_linear
    from .pairing import pair

_HOMES = {
    "MixKey": "keys",
    "MixConv2d": "nn",
    "GroupMix": "nn",
    "GroupUnmix": "nn",
    "UnmixLinear": "nn",
    "pair": "pairing",
    "convert": "conversion",
    "explain": "backend",
    "conv_mix": "ops",
    "act_mix": "ops",
    "group_mix": "ops",
    "group_unmix": "ops",
    "unmix_linear": "ops",
    "sample_orthogonal": "ops",
}

__all__ = [
    "GroupMix",
    "GroupUnmix",
    "MixConv2d",
    "MixKey",
    "UnmixLinear",
    "act_mix",
    "conv_mix",
    "convert",
    "explain",
    "group_mix",
    "group_unmix",
    "pair",
    "sample_orthogonal",
    "unmix_linear",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'facemix_ops' has no attribute {name!r}")
    if importlib.util.find_spec("torch") is None:
        raise ImportError(f"facemix_ops.{name} needs PyTorch: pip install 'facemix[torch]'")
    # An op's name is also the name of its module under ops/, so the function is fetched and kept here.
    value = getattr(importlib.import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
