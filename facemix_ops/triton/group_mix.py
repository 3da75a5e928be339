"""group_mix and group_unmix: x is read once, y written once."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch
from .mixing import mixture, tile


@triton.jit
def group_mix_kernel(
    x,  # [B, n]
    y,  # [B, n]
    coeffs,  # [G, S, S]
    order,  # [B]
    n,
    TRANSPOSE: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    g, e = tile(n, BLOCK, INDEX)
    j = tl.arange(0, S2)
    inside = e < n
    rows = tl.load(order + g * S + j, mask=j < S, other=0) if TRANSPOSE else g * S + j
    v = tl.load(x + rows[:, None] * n + e[None, :], mask=(j < S)[:, None] & inside[None, :], other=0.0).to(T)
    for i in range(S):
        row = g * S + i if TRANSPOSE else tl.load(order + g * S + i)
        tl.store(y + row * n + e, mixture(coeffs, g, i, v, TRANSPOSE, S, S2, T), mask=inside)


def group_mix(x: Tensor, coeffs: Tensor, order: Tensor, out: Tensor, *, transpose: bool) -> None:
    """Mixes (or with ``transpose`` un-mixes) the dense rows of ``x`` into ``out``, dense alike."""
    if not x.numel():
        return
    groups, size = coeffs.shape[:2]
    n = x.numel() // x.shape[0]
    block, warps = tiles.line(size, n, x.dtype)
    launch(
        group_mix_kernel, groups * triton.cdiv(n, block), x, out, coeffs, order, n, TRANSPOSE=transpose, BLOCK=block,
        **constants(coeffs, x.dtype, n), num_warps=warps,
    )  # fmt: skip
