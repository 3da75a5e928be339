"""Convolution, activation, max-pool, mix, shuffle: five steps."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..keys import MixKey
from .act_mix import act_mix


def conv_mix(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    key: MixKey,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    activation: Any = None,
    pool: Any = None,
) -> Tensor:
    """As ``facemix_ops.conv_mix``."""
    return act_mix(F.conv2d(x, weight, bias, stride, padding, dilation), key, activation=activation, pool=pool)


def whole(y: Tensor) -> Tensor:
    """As int8: to nearest, ties to even, saturated at -127 and 127, NaN as 0."""
    return y.nan_to_num(0, torch.inf, -torch.inf).round().clamp(-127, 127).to(torch.int8)
