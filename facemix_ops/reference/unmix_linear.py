"""Un-shuffle, un-mix, linear."""

from torch import Tensor
from torch.nn import functional as F

from ..keys import MixKey
from .group_unmix import group_unmix


def unmix_linear(y: Tensor, key: MixKey, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As ``facemix_ops.unmix_linear``."""
    return F.linear(group_unmix(y, key), weight, bias)
