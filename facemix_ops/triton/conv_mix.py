"""conv_mix: convolution, bias, activation, max-pool, mix and shuffle in one kernel.

The convolution of one image's tile is a product of gathered pixels [rows, K] and the weight [K, columns] on the tensor
cores (implicit GEMM); with a pool it is made once for every element of the windows, and the maximum kept. Rows of K are
taps, then channels, so that channels_last input is read in runs. K is one row of the kernel after the other, or all of
them where they are few: where a tap lies, which costs divisions, is then worked out once, outside of that loop.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch, precision, reach
from .mixing import blocks_of, column, number, pooled, sent_rows, wire

CUDNN: Any = torch.backends.cudnn  # its settings have no types


@triton.jit
def conv_mix_kernel(
    x,  # [B, C, H, W], any strides
    weight,  # [OC, C, KH, KW], any strides
    bias,  # [OC] or None
    y,  # [B, OC, PH, PW], dense
    codes,  # as y, rows in the order of x; or None
    coeffs,  # [G, S, S]
    order,  # [B]
    slope: tl.float64,
    slope_at,  # on the device, instead of slope; or None
    x_b,
    x_c,
    x_h,
    x_w,
    w_o,
    w_c,
    w_h,
    w_w,
    y_c,  # from one channel of y to the next
    y_p,  # from one pixel to the next
    H,
    W,
    OC,
    OH,
    OW,
    PW,
    pixels,  # of an image of y
    C: tl.constexpr,
    KH,  # not at compile time: the loop over it, unrolled, would take more registers than there are
    KW: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    KIND: tl.constexpr,
    POOL_H: tl.constexpr,
    POOL_W: tl.constexpr,
    POOL_SH: tl.constexpr,
    POOL_SW: tl.constexpr,
    POOL_PAD_H: tl.constexpr,
    POOL_PAD_W: tl.constexpr,
    PRECISION: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FUSED: tl.constexpr,  # rows of the kernel that are one row of K: all of them, or one
):
    K: tl.constexpr = FUSED * KW * C
    column_blocks, row_blocks = blocks_of(OC, COLUMNS), blocks_of(pixels, ROWS)
    pid = tl.program_id(0)
    n = (pid % column_blocks).to(INDEX) * COLUMNS + tl.arange(0, COLUMNS)
    p = (pid // column_blocks % row_blocks).to(INDEX) * ROWS + tl.arange(0, ROWS)
    g = (pid // column_blocks // row_blocks).to(tl.int64)
    inside = (p < pixels)[:, None] & (n < OC)[None, :]
    at = p[:, None] * y_p + n[None, :] * y_c
    top, left = p // PW * POOL_SH - POOL_PAD_H, p % PW * POOL_SW - POOL_PAD_W
    negative_slope = number(slope, slope_at, T)
    if bias is not None:
        term = tl.load(bias + n, mask=n < OC, other=0.0).to(T)[None, :]
    out = tl.zeros((S2, ROWS, COLUMNS), T)
    for j in range(S):
        b = g * S + j
        best = tl.full((ROWS, COLUMNS), float("-inf"), T)
        code = tl.full((ROWS, COLUMNS), -1, tl.int32)
        for e in range(POOL_H * POOL_W):
            oh, ow = top + e // POOL_W, left + e % POOL_W
            valid = (p < pixels) & (oh >= 0) & (oh < OH) & (ow >= 0) & (ow < OW)
            ih, iw = oh * STRIDE_H - PAD_H, ow * STRIDE_W - PAD_W
            first = ih * x_h + iw * x_w
            z = tl.zeros((ROWS, COLUMNS), T)
            for kh0 in range(0, KH, FUSED):
                down = tl.cast(kh0, INDEX)
                for k0 in range(0, K, DEPTH):
                    k = (k0 + tl.arange(0, DEPTH)).to(INDEX)
                    kh, kw, c = k // C // KW if FUSED > 1 else tl.zeros_like(k), k // C % KW, k % C
                    dh, dw = kh * DILATION_H, kw * DILATION_W
                    h, w = (ih + down * DILATION_H)[:, None] + dh[None, :], iw[:, None] + dw[None, :]
                    read = (k < K)[None, :] & valid[:, None] & (h >= 0) & (h < H) & (w >= 0) & (w < W)
                    pixel, tap = dh * x_h + dw * x_w + c * x_c, c * w_c + kh * w_h + kw * w_w
                    pixel = (first + down * DILATION_H * x_h)[:, None] + pixel[None, :]
                    tap = (down * w_h + tap)[:, None] + (n * w_o)[None, :]
                    image = tl.load(x + b * x_b + pixel, mask=read, other=0.0)
                    taps = tl.load(weight + tap, mask=(k < K)[:, None] & (n < OC)[None, :], other=0.0)
                    z = tl.dot(image, taps, z, input_precision=PRECISION, out_dtype=T)
            if bias is not None:
                z += term
            best, code = pooled(best, code, z, valid[:, None], e, KIND, negative_slope, codes is not None)
        if codes is not None:
            tl.store(codes + b * OC * pixels + at, code.to(tl.uint8), mask=inside)
        out += column(coeffs, g, j, False, S, S2, T)[:, None, None] * best[None, :, :]
    rows = sent_rows(order, g, S, S2)[:, None, None]
    real = (tl.arange(0, S2) < S)[:, None, None]
    tl.store(y + rows * OC * pixels + at[None, :, :], wire(out, y), mask=real & inside[None, :, :])


def conv_mix(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
             padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None,
             pool: list[int], size: list[int], last: bool, y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    """Fills ``y`` and, where given, ``codes``, dense and NHWC where ``last``. size: of the convolution's result."""
    if not y.numel():
        return
    oc, c, kh, kw = weight.shape
    ph, pw = y.shape[2:]
    # Every program reads it, again for every image: one row of K after the other, of all output channels.
    weight = weight.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)
    fused = kh if kh * kw * c <= tiles.DEPTH else 1
    tile = tiles.convolution(coeffs.shape[1], ph * pw, oc, fused * kw * c, x.dtype, pool[0] * pool[1] > 1)
    programs = coeffs.shape[0] * triton.cdiv(ph * pw, tile.rows) * triton.cdiv(oc, tile.columns)
    extent = max(reach(x[:1]), reach(weight), y.numel() // y.shape[0])
    launch(
        conv_mix_kernel, programs, x, weight, bias, y, codes, coeffs, order, slope, prelu, *x.stride(),
        *weight.stride(), *((1, oc) if last else (ph * pw, 1)), *x.shape[2:], oc, *size, pw, ph * pw, C=c, KH=kh, KW=kw,
        STRIDE_H=stride[0], STRIDE_W=stride[1], PAD_H=padding[0], PAD_W=padding[1], DILATION_H=dilation[0],
        DILATION_W=dilation[1], KIND=kind, POOL_H=pool[0], POOL_W=pool[1], POOL_SH=pool[2], POOL_SW=pool[3],
        POOL_PAD_H=pool[4], POOL_PAD_W=pool[5],
        PRECISION=precision(x, CUDNN.conv),
        ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, FUSED=fused, num_warps=tile.warps,
        **constants(coeffs, x.dtype, extent),
    )  # fmt: skip
