"""The convolution of a tile, of all images of a group: one product on the tensor cores (implicit GEMM).

It is of the weight [channels, K] and gathered values [K, places x images]. Rows of K follow the runs of x's memory
under a window: a row of its pixels with all their channels where x is channels_last, else of one channel. What is
aligned alike in all windows is read several elements at once, copied while the step before is multiplied; what is not
is a part of K of its own. A tile's windows begin in one row of x, at known distances; most tiles lie inside the image,
and none of their places is compared with its borders.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles

LEAST_DOT = tl.constexpr(tiles.LEAST_DOT)


class Runs(NamedTuple):
    """How the rows of K follow memory.

    Attributes:
        height: runs of a channel, or of all.
        step: elements from one pixel to the next.
        start: the first aligned element of a run.
        aligned: how many are.
        rest: how many are not, the first ``start`` of them before.
        vector: elements that are read at once.
    """

    height: int
    step: int
    start: int
    aligned: int
    rest: int
    vector: int


def runs(x: Tensor, window: torch.Size, stride: list[int], padding: list[int], dilation: list[int]) -> Runs:
    """For a ``window`` of [height, width]."""
    height, width = window
    last = x.stride(1) == 1
    step = x.shape[1] if last else 1
    length = width * step
    # A vector's elements are neighbours in memory, and all lie in a row of the image or none does.
    vector = math.gcd(
        tiles.VECTOR // x.itemsize, x.data_ptr() // x.itemsize, x.stride(0), 0 if last else x.stride(1), x.stride(2),
        x.shape[3] * step, stride[1] * step, 1 if x.stride(3) != step else 0, step if dilation[1] > 1 else 0,
    )  # fmt: skip
    while vector > 1:
        start = padding[1] * step % vector
        aligned = (length - start) // vector * vector
        rest = length - aligned
        if not rest or (8 * rest <= aligned and height * aligned >= 96):  # the rest takes a step of its own
            return Runs(height, step, start, aligned, rest, vector)
        vector //= 2
    return Runs(height, step, 0, length, 0, 1)


def taps(weight: Tensor, along: Runs) -> Tensor:
    """The weight [OC, C, KH, KW] as [K, OC]: runs, then their elements."""
    order = (2, 3, 1, 0) if along.step > 1 else (1, 2, 3, 0)
    return weight.permute(order).reshape(-1, weight.shape[0]).contiguous()


@triton.jit
def sums(x, weight, ih, iw, spread, SPAN: tl.constexpr, n, j, strides, sizes, K, OC, DILATION: tl.constexpr,
         RUNS: tl.constexpr, PRECISION: tl.constexpr, S: tl.constexpr, DEPTH: tl.constexpr, T: tl.constexpr,
         INDEX: tl.constexpr):  # fmt: skip
    """z [N, P * S2] in T: of channels n [N] of all images j [S2] of a group, which begins at x.

    Of windows in a row, that begin at (ih, iw) and ``spread`` [P] columns behind, SPAN at most.
    """
    STEP: tl.constexpr = RUNS[1]
    WIDTH: tl.constexpr = (RUNS[3] + RUNS[4]) // STEP
    _, _, x_h, x_w = strides
    H, W = sizes
    x += ih.to(tl.int64) * x_h + iw.to(tl.int64) * x_w
    z = tl.zeros((n.shape[0], spread.shape[0] * j.shape[0]), T)
    inside = (ih >= 0) & (ih + (RUNS[0] - 1) * DILATION[0] < H)
    inside &= (iw >= 0) & (iw + SPAN + (WIDTH - 1) * DILATION[1] < W)
    if inside:
        z = parts_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, False, DILATION, RUNS, PRECISION, S,
                     DEPTH, INDEX)  # fmt: skip
    else:
        z = parts_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, True, DILATION, RUNS, PRECISION, S,
                     DEPTH, INDEX)  # fmt: skip
    return z


@triton.jit
def parts_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, EDGES: tl.constexpr, DILATION: tl.constexpr,
             RUNS: tl.constexpr, PRECISION: tl.constexpr, S: tl.constexpr, DEPTH: tl.constexpr,
             INDEX: tl.constexpr):  # fmt: skip
    """z and the products of all runs. Where EDGES, what is outside counts as zero."""
    z = part_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, EDGES, DILATION, RUNS, False, PRECISION, S,
                DEPTH, INDEX)  # fmt: skip
    if RUNS[4] > 0:
        z = part_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, EDGES, DILATION, RUNS, True, PRECISION,
                    S, LEAST_DOT, INDEX)  # fmt: skip
    return z


@triton.jit
def part_of(z, x, weight, ih, iw, spread, n, j, strides, sizes, K, OC, EDGES: tl.constexpr, DILATION: tl.constexpr,
            RUNS: tl.constexpr, IS_REST: tl.constexpr, PRECISION: tl.constexpr, S: tl.constexpr,
            DEPTH: tl.constexpr, INDEX: tl.constexpr):  # fmt: skip
    """z and the products of the aligned elements of all runs, or of the rest."""
    HEIGHT: tl.constexpr = RUNS[0]
    STEP: tl.constexpr = RUNS[1]
    START: tl.constexpr = RUNS[2]
    ALIGNED: tl.constexpr = RUNS[3]
    REST: tl.constexpr = RUNS[4]
    LENGTH: tl.constexpr = REST if IS_REST else ALIGNED
    VECTOR: tl.constexpr = 1 if IS_REST else RUNS[5]
    BYTES: tl.constexpr = VECTOR * x.dtype.element_ty.primitive_bitwidth // 8
    x_b, x_c, x_h, x_w = strides
    H, W = sizes
    count = K // (ALIGNED + REST)
    for k0 in range(0, count * LENGTH, DEPTH):
        k = (k0 + tl.arange(0, DEPTH)).to(INDEX)
        run, e = k // LENGTH, k % LENGTH
        e = tl.where(e < START, e, e + ALIGNED) if IS_REST else e + START
        if STEP > 1:
            c, row = e % STEP, run
        else:
            c, row = run // HEIGHT, run % HEIGHT
        dh, dw = row * DILATION[0], e // STEP * DILATION[1]
        at = x + (dh * x_h + dw * x_w + c * x_c)[None, None, :] + (j.to(INDEX) * x_b)[None, :, None]
        at += (spread.to(INDEX) * x_w)[:, None, None]
        read = (run < count)[None, None, :] & (j < S)[None, :, None]
        if EDGES:
            # Without a sign, what is below zero is past the end as well. One comparison for each place: rows that are
            # not read have no width.
            read &= ((ih + dh).to(tl.uint32) < H)[None, None, :]
            w = (iw + spread)[:, None, None] + dw[None, None, :]
            read = w.to(tl.uint32) < tl.where(read, W, 0).to(tl.uint32)
        if VECTOR > 1:
            at = tl.max_contiguous(tl.multiple_of(at, [1, 1, BYTES]), [1, 1, VECTOR])
            read = tl.max_constancy(read, [1, 1, VECTOR])
        image = tl.reshape(tl.load(at, mask=read, other=0.0), (z.shape[1], DEPTH))
        at = weight + ((run * (ALIGNED + REST) + e) * OC)[:, None] + n[None, :]
        rows = tl.load(at, mask=(run < count)[:, None] & (n < OC)[None, :], other=0.0)
        z = tl.dot(tl.trans(rows), tl.trans(image), z, input_precision=PRECISION, out_dtype=z.dtype)
    return z
