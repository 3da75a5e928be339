"""x[g*S+j] = sum_i A[g,i,j] y[order[g*S+i]]"""

import math

import torch
from torch import Tensor

from ..keys import MixKey
from .mixing import product


def group_unmix(y: Tensor, key: MixKey) -> Tensor:
    """Un-shuffles and un-mixes ``y`` [B, ...]: inverse and adjoint of group_mix."""
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    groups = y.to(dtype).index_select(0, key.order).reshape(key.groups, key.group_size, math.prod(y.shape[1:]))
    return product(key.coeffs.transpose(1, 2), groups).reshape(y.shape).to(y.dtype)
