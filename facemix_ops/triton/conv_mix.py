"""conv_mix: convolution, bias, activation, max-pool, mix and shuffle in one kernel.

The convolution of a tile's pixels, of all images of the group, is one product of the weight [channels, K] and gathered
values [K, pixels x images] on the tensor cores (implicit GEMM); with a pool it is made once for every element of the
windows, and the maximum kept. Rows of K are taps, then channels, so that channels_last input is read in runs. The mix
is a second product, of the sums as they lie.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch, parts, precision, reach
from .mixing import blocks_of, mixtures, number, pooled, sent_rows, wire

CUDNN: Any = torch.backends.cudnn  # its settings have no types


@triton.jit
def conv_mix_kernel(
    x,  # [B, C, H, W], any strides
    weight,  # [K, OC]
    bias,  # [OC] or None
    y,  # [B, OC, PH, PW], dense
    codes,  # as y, rows in the order of x; or None
    coeffs,  # [G, S, S]
    order,  # [B]
    slope: tl.float64,
    slope_at,  # on the device, instead of slope; or None
    x_b: tl.constexpr,  # so that an image's values are read at a distance that is part of the instruction
    x_c,
    x_h,
    x_w,
    y_c,  # from one channel of y to the next
    y_p,  # from one pixel to the next
    H,
    W,
    OC,
    OH,
    OW,
    PW,
    pixels,  # of an image of y
    K,
    C: tl.constexpr,
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
    PARTS: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    CHANNELS: tl.constexpr,
    PIXELS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    WINDOW: tl.constexpr = POOL_H * POOL_W
    channel_blocks, pixel_blocks = blocks_of(OC, CHANNELS), blocks_of(pixels, PIXELS)
    pid = tl.program_id(0)
    n = (pid % channel_blocks).to(INDEX) * CHANNELS + tl.arange(0, CHANNELS)
    p = (pid // channel_blocks % pixel_blocks).to(INDEX) * PIXELS + tl.arange(0, PIXELS)
    g = (pid // channel_blocks // pixel_blocks).to(tl.int64)
    j = tl.arange(0, S2)
    x += g * S * x_b
    top, left = p // PW * POOL_SH - POOL_PAD_H, p % PW * POOL_SW - POOL_PAD_W
    negative_slope = number(slope, slope_at, T)
    if bias is not None:
        term = tl.load(bias + n, mask=n < OC, other=0.0).to(T)[:, None]
    best = tl.full((CHANNELS, PIXELS * S2), float("-inf"), T)
    code = tl.full((CHANNELS, PIXELS * S2), -1, tl.int32)
    for e in range(WINDOW):
        oh, ow = top + e // POOL_W, left + e % POOL_W
        valid = (p < pixels) & (oh >= 0) & (oh < OH) & (ow >= 0) & (ow < OW)
        ih, iw = oh * STRIDE_H - PAD_H, ow * STRIDE_W - PAD_W
        first = ih * x_h + iw * x_w
        z = tl.zeros((CHANNELS, PIXELS * S2), T)
        for k0 in range(0, K, DEPTH):
            k = (k0 + tl.arange(0, DEPTH)).to(INDEX)
            c, dh, dw = k % C, k // C // KW * DILATION_H, k // C % KW * DILATION_W
            # Without a sign, what is below zero is past the end as well.
            h, w = (ih[:, None] + dh[None, :]).to(tl.uint32), (iw[:, None] + dw[None, :]).to(tl.uint32)
            read = valid[:, None] & (k < K)[None, :] & (h < H) & (w < W)
            at = first[:, None] + (dh * x_h + dw * x_w + c * x_c)[None, :]
            at = (x + at)[None, :, :] + (j.to(INDEX) * x_b)[:, None, None]
            image = tl.load(at, mask=(j < S)[:, None, None] & read[None, :, :], other=0.0)
            image = tl.reshape(tl.permute(image, (1, 0, 2)), (PIXELS * S2, DEPTH))
            at = weight + (k * OC)[:, None] + n[None, :]
            taps = tl.load(at, mask=(k < K)[:, None] & (n < OC)[None, :], other=0.0)
            z = tl.dot(tl.trans(taps), tl.trans(image), z, input_precision=PRECISION, out_dtype=T)
        if bias is not None:
            z += term
        real = tl.reshape(tl.broadcast_to(valid[:, None], (PIXELS, S2)), (1, PIXELS * S2))
        best, code = pooled(best, code, z, real, e, KIND, negative_slope, codes is not None, WINDOW)
    v = tl.reshape(best.to(x.dtype.element_ty), (CHANNELS, PIXELS, S2))
    out = mixtures(v, coeffs, g, PRECISION, S, S2, PARTS, T)
    at = (p * y_p)[:, None] + (n * y_c)[None, :]
    inside = ((p < pixels)[:, None] & (n < OC)[None, :])[:, :, None] & (j < S)[None, None, :]
    rows = sent_rows(order, g, S, S2)
    tl.store(y + (rows * OC * pixels)[None, None, :] + at[:, :, None], wire(out, y), mask=inside)
    if codes is not None:
        code = tl.permute(tl.reshape(code.to(tl.uint8), (CHANNELS, PIXELS, S2)), (1, 0, 2))
        tl.store(codes + ((g * S + j) * OC * pixels)[None, None, :] + at[:, :, None], code, mask=inside)


def conv_mix(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
             padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None,
             pool: list[int], size: list[int], last: bool, y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    """Fills ``y`` and, where given, ``codes``, dense and NHWC where ``last``. size: of the convolution's result."""
    if not y.numel():
        return
    oc, c, _, kw = weight.shape
    ph, pw = y.shape[2:]
    taps = weight.permute(2, 3, 1, 0).reshape(-1, oc).contiguous()  # in the order in which every program reads them
    tile = tiles.convolution(coeffs.shape[1], ph * pw, oc, len(taps), x.dtype, pool[0] * pool[1] > 1)
    programs = coeffs.shape[0] * triton.cdiv(ph * pw, tile.items) * triton.cdiv(oc, tile.columns)
    extent = max(reach(x[: coeffs.shape[1]]), reach(taps), y.numel() // y.shape[0])
    launch(
        conv_mix_kernel, programs, x, taps, bias, y, codes, coeffs, order, slope, prelu, *x.stride(),
        *((1, oc) if last else (ph * pw, 1)), *x.shape[2:], oc, *size, pw, ph * pw, len(taps), C=c, KW=kw,
        STRIDE_H=stride[0], STRIDE_W=stride[1], PAD_H=padding[0], PAD_W=padding[1], DILATION_H=dilation[0],
        DILATION_W=dilation[1], KIND=kind, POOL_H=pool[0], POOL_W=pool[1], POOL_SH=pool[2], POOL_SW=pool[3],
        POOL_PAD_H=pool[4], POOL_PAD_W=pool[5],
        PRECISION=precision(x, CUDNN.conv), PARTS=parts(coeffs, x.dtype),
        CHANNELS=tile.columns, PIXELS=tile.items, DEPTH=tile.depth, num_warps=tile.warps,
        **constants(coeffs, x.dtype, extent),
    )  # fmt: skip
