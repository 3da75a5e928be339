"""conv_mix: convolution, bias, activation, max-pool, mix and shuffle in one kernel.

A tile's pixels, of all images of the group, are convolved by one product (convolution.py); with a pool once for each
element of the windows, and the maximum is kept. Pools of 3x3 and stride 2 have a kernel of their own
(conv_mix_pool.py). The mix is a second product, of the sums as they lie.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .conv_mix_pool import conv_mix_pool_kernel
from .convolution import runs, sums, taps
from .launch import constants, launch, parts, precision, reach, warpgroups
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
    x_b: tl.constexpr,  # known distances are part of the instructions that read
    x_c,
    x_h,
    x_w: tl.constexpr,
    y_c,  # from one channel of y to the next
    y_p,  # from one pixel to the next
    H,
    W,
    OC,
    OH,
    OW,
    PH,
    PW,
    K,
    RUNS: tl.constexpr,
    STRIDE: tl.constexpr,
    PAD: tl.constexpr,
    DILATION: tl.constexpr,
    KIND: tl.constexpr,
    POOL: tl.constexpr,
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
    WINDOW: tl.constexpr = POOL[0] * POOL[1]
    APART: tl.constexpr = POOL[3] * STRIDE[1]  # columns of x from one pixel of y to the next
    channel_blocks, strips = blocks_of(OC, CHANNELS), blocks_of(PW, PIXELS)
    pid = tl.program_id(0)
    n = (pid % channel_blocks).to(INDEX) * CHANNELS + tl.arange(0, CHANNELS)
    left = (pid // channel_blocks % strips).to(INDEX) * PIXELS
    ph = (pid // channel_blocks // strips % PH).to(INDEX)
    g = (pid // channel_blocks // strips // PH).to(tl.int64)
    j, p = tl.arange(0, S2), tl.arange(0, PIXELS)
    x += g * S * x_b
    negative_slope = number(slope, slope_at, T)
    if bias is not None:
        term = tl.load(bias + n, mask=n < OC, other=0.0).to(T)[:, None]
    best = tl.full((CHANNELS, PIXELS * S2), float("-inf"), T)
    code = tl.full((CHANNELS, PIXELS * S2), -1, tl.int32)
    for e in range(WINDOW):
        oh, ow = ph * POOL[2] - POOL[4] + e // POOL[1], left * POOL[3] - POOL[5] + e % POOL[1]
        z = sums(
            x, weight, oh * STRIDE[0] - PAD[0], ow * STRIDE[1] - PAD[1], p * APART, (PIXELS - 1) * APART, n, j,
            (x_b, x_c, x_h, x_w), (H, W), K, OC, DILATION, RUNS, PRECISION, S, DEPTH, T, INDEX,
        )  # fmt: skip
        if bias is not None:
            z += term
        columns = ow + p * POOL[3]
        valid = (columns >= 0) & (columns < OW) & (oh >= 0) & (oh < OH)
        real = tl.reshape(tl.broadcast_to(valid[:, None], (PIXELS, S2)), (1, PIXELS * S2))
        best, code = pooled(best, code, z, real, e, KIND, negative_slope, codes is not None, WINDOW)
    v = tl.reshape(best.to(x.dtype.element_ty), (CHANNELS, PIXELS, S2))
    out = mixtures(v, coeffs, g, PRECISION, S, S2, PARTS, T)
    at = ((ph * PW + left + p) * y_p)[:, None] + (n * y_c)[None, :]
    inside = ((left + p < PW)[:, None] & (n < OC)[None, :])[:, :, None] & (j < S)[None, None, :]
    rows = sent_rows(order, g, S, S2)
    tl.store(y + (rows * OC * PH * PW)[None, None, :] + at[:, :, None], wire(out, y), mask=inside)
    if codes is not None:
        code = tl.permute(tl.reshape(code.to(tl.uint8), (CHANNELS, PIXELS, S2)), (1, 0, 2))
        tl.store(codes + ((g * S + j) * OC * PH * PW)[None, None, :] + at[:, :, None], code, mask=inside)


def conv_mix(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
             padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None,
             pool: list[int], size: list[int], last: bool, y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    """Fills ``y`` and, where given, ``codes``, dense and NHWC where ``last``. size: of the convolution's result."""
    if not y.numel():
        return
    oc, (ph, pw), (groups, group, _) = weight.shape[0], y.shape[2:], coeffs.shape
    along = runs(x, weight.shape[2:], stride, padding, dilation)
    rows = taps(weight, along)
    extent = max(reach(x[:group]), reach(rows), y.numel() // y.shape[0])
    values = (
        x, rows, bias, y, codes, coeffs, order, slope, prelu, *x.stride(), *((1, oc) if last else (ph * pw, 1)),
        *x.shape[2:], oc, *size, ph, pw, len(rows),
    )  # fmt: skip
    known = dict(
        RUNS=along, STRIDE=tuple(stride), PAD=tuple(padding), DILATION=tuple(dilation), KIND=kind, POOL=tuple(pool),
        PRECISION=precision(x, CUDNN.conv), PARTS=parts(coeffs, x.dtype), num_stages=2,
        **constants(coeffs, x.dtype, extent),
    )  # fmt: skip
    if pool[:4] == [3, 3, 2, 2] and x.itemsize == 2 and group <= 16:  # larger ones leave strips too few pixels
        walk = tiles.walk(group, groups, ph, pw, oc, codes is not None, warpgroups(x))
        programs = groups * triton.cdiv(ph, walk.rows) * triton.cdiv(pw, walk.results) * triton.cdiv(oc, walk.columns)
        launch(
            conv_mix_pool_kernel, programs, *values, walk.rows, CHANNELS=walk.columns, STRIPS=walk.strips,
            WIDTH=walk.width, DEPTH=walk.depth, num_warps=walk.warps, **known,
        )  # fmt: skip
    else:
        tile = tiles.convolution(group, pw, oc, len(rows), x.dtype, pool[0] * pool[1] > 1)
        programs = groups * ph * triton.cdiv(pw, tile.items) * triton.cdiv(oc, tile.columns)
        launch(
            conv_mix_kernel, programs, *values, CHANNELS=tile.columns, PIXELS=tile.items, DEPTH=tile.depth,
            num_warps=tile.warps, **known,
        )  # fmt: skip
