"""act_mix: affine, residual, activation and max-pool of a tile of all images of a group, then its mixtures."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch
from .mixing import mixture, number, offset, pooled, split, tile


@triton.jit
def act_mix_kernel(
    x,  # [B, C, H, W], or [B, H, W, C] where LAST
    scale,  # [C] or None
    shift,  # [C] or None
    residual,  # as x, or None
    y,  # [B, C, PH, PW], or [B, PH, PW, C]
    codes,  # as y, rows in the order of x; or None
    coeffs,  # [G, S, S]
    order,  # [B]
    slope: tl.float64,
    slope_at,  # on the device, instead of slope; or None
    n,  # C * PH * PW
    C,
    H,
    W,
    PH,
    PW,
    KIND: tl.constexpr,
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
    negative_slope = number(slope, slope_at, T)
    if scale is not None:
        factor = tl.load(scale + c, mask=inside, other=0.0)
    if shift is not None:
        term = tl.load(shift + c, mask=inside, other=0.0)
    i = tl.arange(0, S2)
    rows = (g * S + i)[:, None]
    inside = (i < S)[:, None] & inside[None, :]
    best = tl.full((S2, BLOCK), float("-inf"), T)
    code = tl.full((S2, BLOCK), -1, tl.int32)
    for k in range(KH * KW):
        h, w = top + k // KW, left + k % KW
        valid = inside & ((h >= 0) & (h < H) & (w >= 0) & (w < W))[None, :]
        at = rows * C * H * W + offset(c, h, w, C, H, W, LAST)[None, :]
        z = tl.load(x + at, mask=valid, other=0.0).to(T)
        if scale is not None:
            z *= factor[None, :]
        if shift is not None:
            z += term[None, :]
        if residual is not None:
            z += tl.load(residual + at, mask=valid, other=0.0).to(T)
        best, code = pooled(best, code, z, valid, k, KIND, negative_slope, codes is not None, KH * KW)
    if codes is not None:
        tl.store(codes + rows * n + e[None, :], code.to(tl.uint8), mask=inside)
    best = tl.where(inside, best, 0.0)  # the mixtures add rows past S, times 0
    for s in range(S):
        row = tl.load(order + g * S + s)
        tl.store(y + row * n + e, mixture(coeffs, g, s, best, False, S, S2, T), mask=e < n)


def act_mix(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
            residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int], last: bool,
            y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    """Fills ``y`` and, where given, ``codes``. Images are dense, NHWC where ``last``."""
    if not y.numel():
        return
    size = coeffs.shape[1]
    n = y.numel() // y.shape[0]
    block, warps = tiles.line(size, n, x.dtype, 2 if codes is None else 4)
    kh, kw, sh, sw, pad_h, pad_w = pool
    launch(
        act_mix_kernel, coeffs.shape[0] * triton.cdiv(n, block), x, scale, shift, residual, y, codes, coeffs, order,
        slope, weight, n, *x.shape[1:], *y.shape[2:], KIND=kind, KH=kh, KW=kw, SH=sh, SW=sw, PAD_H=pad_h, PAD_W=pad_w,
        LAST=last, BLOCK=block, **constants(coeffs, x.dtype, max(x.numel() // x.shape[0], n)), num_warps=warps,
    )  # fmt: skip
