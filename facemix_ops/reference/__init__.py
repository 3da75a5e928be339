"""The ops in plain PyTorch, a few lines each: the specification that kernels are tested against.

Every function takes and returns what its namesake in ``facemix_ops`` does (``out=`` and ``out_dtype=`` excepted);
``whole`` is what ``conv_mix`` writes as int8.
"""

from .act_mix import act_mix, act_mix_jvp, act_mix_vjp, codes
from .conv_mix import conv_mix, whole
from .group_mix import group_mix
from .group_unmix import group_unmix
from .sample_orthogonal import sample_orthogonal
from .unmix_linear import unmix_linear

__all__ = [
    "act_mix",
    "act_mix_jvp",
    "act_mix_vjp",
    "codes",
    "conv_mix",
    "group_mix",
    "group_unmix",
    "sample_orthogonal",
    "unmix_linear",
    "whole",
]
