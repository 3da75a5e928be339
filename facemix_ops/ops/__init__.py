"""One file per op: schema, checks, fake, autograd, CPU implementation, docs."""

from .act_mix import act_mix
from .conv_mix import conv_mix
from .group_mix import group_mix
from .group_unmix import group_unmix
from .sample_orthogonal import sample_orthogonal
from .unmix_linear import unmix_linear

__all__ = ["act_mix", "conv_mix", "group_mix", "group_unmix", "sample_orthogonal", "unmix_linear"]
