"""y[order[g*S+i]] = sum_j A[g,i,j] x[g*S+j]"""

import math

import torch
from torch import Tensor

from ..keys import MixKey
from .mixing import product


def group_mix(x: Tensor, key: MixKey) -> Tensor:
    """Mixes ``x`` [B, ...]; computes in float64 where x is, else in float32."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    groups = x.to(dtype).reshape(key.groups, key.group_size, math.prod(x.shape[1:]))
    mixed = product(key.coeffs, groups).reshape(x.shape)
    return torch.empty_like(mixed).index_copy(0, key.order, mixed).to(x.dtype)
