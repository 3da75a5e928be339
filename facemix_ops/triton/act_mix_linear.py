"""act_mix_jvp and act_mix_vjp: the linearisation of act_mix at the recorded codes, and its adjoint.

jvp  y = mix(f * z[winner])             each pooled value reads its winner
vjp  z[winner] += f * unmix(y)          each value of z looks at the windows that cover it: no two programs write one
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch
from .mixing import NEGATIVE, WINDOW, mixture, number, offset, split, tile


@triton.jit
def act_mix_jvp_kernel(
    z,  # [B, C, H, W], or [B, H, W, C] where LAST
    y,  # [B, C, PH, PW], or [B, PH, PW, C]
    codes,  # as y, rows in the order of z
    coeffs,  # [G, S, S]
    order,  # [B]
    pos: tl.float64,
    neg: tl.float64,
    neg_at,  # on the device, instead of neg; or None
    n,  # elements of an image of y
    C,
    H,
    W,
    PH,
    PW,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    LAST: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    g, e = tile(n, BLOCK, INDEX)
    inside = e < n
    c, ph, pw = split(e, C, PH, PW, LAST)
    top, left = ph * SH - PAD_H, pw * SW - PAD_W
    positive, negative = number(pos, None, T), number(neg, neg_at, T)
    i = tl.arange(0, S2)
    rows = (g * S + i)[:, None]
    inside = (i < S)[:, None] & inside[None, :]
    code = tl.load(codes + rows * n + e[None, :], mask=inside, other=0).to(tl.int32)
    k = code & WINDOW
    h, w = top[None, :] + k // KW, left[None, :] + k % KW
    v = tl.load(z + rows * C * H * W + offset(c[None, :], h, w, C, H, W, LAST), mask=inside, other=0.0).to(T)
    v *= tl.where(code >= NEGATIVE, negative, positive)
    for s in range(S):
        row = tl.load(order + g * S + s)
        tl.store(y + row * n + e, mixture(coeffs, g, s, v, False, S, S2, T), mask=e < n)


@triton.jit
def act_mix_vjp_kernel(
    z,  # as in act_mix_jvp_kernel, but written
    y,
    codes,
    coeffs,
    order,
    pos: tl.float64,
    neg: tl.float64,
    neg_at,
    n,  # elements of an image of z
    C,
    H,
    W,
    PH,
    PW,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    LAST: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    g, e = tile(n, BLOCK, INDEX)
    inside = e < n
    c, h, w = split(e, C, H, W, LAST)
    positive, negative = number(pos, None, T), number(neg, neg_at, T)
    i = tl.arange(0, S2)
    real = (i < S)[:, None]
    sent = tl.load(order + g * S + i, mask=i < S, other=0)[:, None]
    # The last window that begins at or before this row is number (h + PAD_H) // SH; ROWS of them may reach it.
    ROWS: tl.constexpr = (KH + SH - 1) // SH
    COLUMNS: tl.constexpr = (KW + SW - 1) // SW
    UNROLL: tl.constexpr = S if S <= 8 else 1
    out = tl.zeros((S2, BLOCK), T)
    for back in range(ROWS * COLUMNS):
        ph, pw = (h + PAD_H) // SH - back // COLUMNS, (w + PAD_W) // SW - back % COLUMNS
        kh, kw = h + PAD_H - ph * SH, w + PAD_W - pw * SW
        covers = inside & (ph >= 0) & (ph < PH) & (kh < KH) & (pw >= 0) & (pw < PW) & (kw < KW)
        at = offset(c, ph, pw, C, PH, PW, LAST)
        v = tl.load(y + sent * C * PH * PW + at[None, :], mask=real & covers[None, :], other=0.0).to(T)
        for j in tl.range(S, loop_unroll_factor=UNROLL):
            b = g * S + j
            code = tl.load(codes + b * C * PH * PW + at, mask=covers, other=0).to(tl.int32)
            won = covers & ((code & WINDOW) == kh * KW + kw)
            u = tl.where(code >= NEGATIVE, negative, positive) * mixture(coeffs, g, j, v, True, S, S2, T)
            u = tl.where(won, u, 0.0)
            if ROWS * COLUMNS == 1:
                tl.store(z + b * n + e, u, mask=inside)
            else:
                out += tl.where((i == j)[:, None], u[None, :], 0.0)
    if ROWS * COLUMNS > 1:
        tl.store(z + (g * S + i)[:, None] * n + e[None, :], out, mask=real & inside[None, :])


def _run(kernel: Any, per_image: int, z: Tensor, y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float,
         neg: float, neg_at: Tensor | None, pool: list[int], last: bool) -> None:  # fmt: skip
    kh, kw, sh, sw, pad_h, pad_w = pool
    block, warps = tiles.line(coeffs.shape[1], per_image, z.dtype, 4)
    extent = max(z.numel(), y.numel()) // max(1, z.shape[0])
    launch(
        kernel, coeffs.shape[0] * triton.cdiv(per_image, block), z, y, codes, coeffs, order, pos, neg, neg_at,
        per_image, *z.shape[1:], *y.shape[2:], KH=kh, KW=kw, SH=sh, SW=sw, PAD_H=pad_h, PAD_W=pad_w, LAST=last,
        BLOCK=block, **constants(coeffs, z.dtype, extent), num_warps=warps,
    )  # fmt: skip


def act_mix_jvp(z: Tensor, y: Tensor, *args: Any) -> None:
    """Fills ``y`` [B, C, PH, PW]. codes, coeffs, order, pos, neg, neg_at, pool, last: see the kernel."""
    if y.numel():
        _run(act_mix_jvp_kernel, y.numel() // y.shape[0], z, y, *args)


def act_mix_vjp(z: Tensor, y: Tensor, *args: Any) -> None:
    """Fills ``z`` [B, C, H, W]; else as act_mix_jvp."""
    if z.numel():
        _run(act_mix_vjp_kernel, z.numel() // z.shape[0], z, y, *args)
