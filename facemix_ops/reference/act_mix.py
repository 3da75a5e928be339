"""Affine, activation, max-pool, mix, shuffle; and the linear maps that its derivatives are made of."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..keys import MixKey
from ..spec import Activation, parse_activation, parse_pool
from .group_mix import group_mix
from .group_unmix import group_unmix

NEGATIVE, WINDOW = 0x80, 0x7F


def affine(x: Tensor, scale: Tensor | None, shift: Tensor | None, residual: Tensor | None) -> Tensor:
    """scale [C] * x + shift [C] + residual, in float32 or better."""
    z = x if x.dtype == torch.float64 or (scale is None and shift is None) else x.float()
    if scale is not None:
        z = z * scale.reshape(-1, 1, 1)
    if shift is not None:
        z = z + shift.reshape(-1, 1, 1)
    return z if residual is None else z + residual


def max_pool(z: Tensor, pool: list[int]) -> Tensor:
    """Max-pool by [kh, kw, sh, sw, ph, pw]; [] for none."""
    return F.max_pool2d(z, pool[:2], pool[2:4], pool[4:]) if pool else z


def act_mix(
    x: Tensor,
    key: MixKey,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Any = None,
    pool: Any = None,
) -> Tensor:
    """As ``facemix_ops.act_mix``."""
    z = parse_activation("act_mix", activation)(affine(x, scale, shift, residual))
    return group_mix(max_pool(z, parse_pool("act_mix", pool)).to(x.dtype), key)


def codes(z: Tensor, activation: Activation, pool: list[int]) -> Tensor:
    """uint8, of the pooled shape: the window element that won, plus 128 where its z was not positive."""
    if not pool:
        return torch.where(z > 0, 0, NEGATIVE).to(torch.uint8)
    kh, kw, sh, sw, ph, pw = pool
    _, index = F.max_pool2d(activation(z), (kh, kw), (sh, sw), (ph, pw), return_indices=True)
    negative = ~(z.flatten(2).gather(2, index.flatten(2)).reshape(index.shape) > 0)
    rows = torch.arange(index.shape[2], device=z.device).reshape(-1, 1) * sh - ph
    columns = torch.arange(index.shape[3], device=z.device) * sw - pw
    element = (index // z.shape[3] - rows) * kw + (index % z.shape[3] - columns)
    return (element + NEGATIVE * negative).to(torch.uint8)


def winners(codes: Tensor, width: int, pool: list[int]) -> Tensor:
    """The index, in the flat H x W plane, that each code points to."""
    _, kw, sh, sw, ph, pw = pool or [1, 1, 1, 1, 0, 0]
    element = (codes & WINDOW).long()
    rows = torch.arange(codes.shape[2], device=codes.device).reshape(-1, 1) * sh - ph
    columns = torch.arange(codes.shape[3], device=codes.device) * sw - pw
    return (rows + element // kw) * width + columns + element % kw


def factors(codes: Tensor, pos: float, neg: float, dtype: torch.dtype) -> Tensor:
    """``neg`` where the activation's negative side was taken, else ``pos``."""
    choice = torch.tensor([pos, neg], dtype=dtype, device=codes.device)
    return choice[(codes >= NEGATIVE).long()]


def act_mix_jvp(z: Tensor, codes: Tensor, key: MixKey, pos: float, neg: float, pool: list[int]) -> Tensor:
    """mix(f * z[winner]): the linearisation of act_mix at the recorded codes."""
    flat = winners(codes, z.shape[3], pool).flatten(2)
    picked = z.flatten(2).gather(2, flat).reshape(codes.shape)
    return group_mix(picked * factors(codes, pos, neg, z.dtype), key)


def act_mix_vjp(
    y: Tensor, codes: Tensor, key: MixKey, height: int, width: int, pos: float, neg: float, pool: list[int]
) -> Tensor:
    """z[winner] += f * unmix(y): its adjoint. Returns [B, C, height, width]."""
    dtype = torch.float64 if y.dtype == torch.float64 else torch.float32
    unmixed = group_unmix(y.to(dtype), key) * factors(codes, pos, neg, dtype)
    flat = winners(codes, width, pool).flatten(2)
    z = unmixed.new_zeros(*codes.shape[:2], height * width).scatter_add(2, flat, unmixed.flatten(2))
    return z.reshape(*codes.shape[:2], height, width).to(y.dtype)
