"""conv_mix in front of a 3x3 pool of stride 2, in 16 bits: windows in registers, little is convolved twice.

A program convolves a row of a strip, and walks down. It finds the largest of three neighbours first; what it finds in a
window's last row is that of the next window's first. Neighbours lie eight columns of the product apart, or a multiple:
so far that a thread has all of a row, where four warps multiply together. Where a group has fewer images, strips are
side by side.

Where codes are wanted, values and where they come from are compared at once, as words: the value is the upper half.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .convolution import sums
from .mixing import LEAKY, NEGATIVE, RELU, activate, blocks_of, mixtures, number, sent_rows, wire

LEAST = tl.constexpr(16 - 2**31)  # of words; the first of a window's elements has 16 below its value, the last none


@triton.jit
def ordered(word):
    """Of a number in the upper 16 bits an integer that is as large as it, and the way back. No zero has a sign."""
    sign = word >> 31
    return (word ^ (sign & 0x7FFF0000)) - (sign & -0x10000)


@triton.jit
def words(v, z, KIND: tl.constexpr, D: tl.constexpr):
    """Of activated values, as D rounds them, and the z that they come from: the first elements of their windows. NaN is
    larger than all."""
    word = v.to(D).to(tl.int16, bitcast=True).to(tl.int32) << 16
    if KIND == RELU:
        word &= 0x7FFF0000
    else:
        word = tl.where(v == v, ordered(word), 0x7FFF0000)
    word |= 16
    return tl.where(z < 0, word | 1, word) if KIND == LEAKY else word


@triton.jit
def behind(word, k, CODES: tl.constexpr):
    """The same as elements k places on."""
    return word - 2 * k if CODES else word


@triton.jit
def values_of(word, KIND: tl.constexpr, D: tl.constexpr):
    """The largest value of a window in D."""
    bits = word >> 16 if KIND == RELU else ordered(word & -0x10000) >> 16
    return bits.to(tl.int16).to(D, bitcast=True)


@triton.jit
def codes_of(word, KIND: tl.constexpr, D: tl.constexpr):
    """Which element it is, and whether its z is positive, which NaN is not."""
    INFINITY: tl.constexpr = 0x7F80 if D.is_bf16() else 0x7C00
    positive = ((word >> 16) - 1).to(tl.uint32) < INFINITY
    if KIND == LEAKY:
        positive &= (word & 1) == 0
    return (tl.where(positive, 8, 8 + NEGATIVE) - ((word >> 1) & 15)).to(tl.uint8)


@triton.jit
def larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def halves(a):
    """Elements 0, 2, ... and 1, 3, ... of the second dimension of [N, P, M]."""
    return tl.split(tl.permute(tl.reshape(a, (a.shape[0], a.shape[1] // 2, 2, a.shape[2])), (0, 1, 3, 2)))


@triton.jit
def following(a):
    """For each element of the second dimension the next one; the last stays."""
    if a.shape[1] == 1:
        return a
    else:
        even, odd = halves(a)
        return tl.reshape(tl.permute(tl.join(odd, following(even)), (0, 1, 3, 2)), a.shape)


@triton.jit
def largest_of_three(z, valid, KIND: tl.constexpr, slope, S2: tl.constexpr, WIDTH: tl.constexpr, CODES: tl.constexpr,
                     D: tl.constexpr):  # fmt: skip
    """[N, WIDTH / 2, strips x images]: of pixels 0 to 2, 2 to 4, ... of strips, activated; as they are or as words.

    z [N, P * S2]: of WIDTH pixels, of each those of all strips; passed over unless ``valid`` [P].
    """
    P: tl.constexpr = valid.shape[0]
    real = tl.reshape(tl.broadcast_to(valid[:, None], (P, S2)), (1, P * S2))
    v = activate(z, KIND, slope)
    v = tl.where(real, words(v, z, KIND, D), LEAST) if CODES else tl.where(real, v, float("-inf"))
    v = tl.reshape(v, (z.shape[0], WIDTH, P // WIDTH * S2))
    first, second = halves(v)
    return larger(larger(first, behind(second, 1, CODES)), behind(following(first), 2, CODES))


@triton.jit
def conv_mix_pool_kernel(
    # Up to K those of conv_mix_kernel.
    x,
    weight,
    bias,
    y,
    codes,
    coeffs,
    order,
    slope: tl.float64,
    slope_at,
    x_b: tl.constexpr,
    x_c,
    x_h,
    x_w: tl.constexpr,
    y_c,
    y_p,
    H,
    W,
    OC,
    OH,
    OW,
    PH,
    PW,
    K,
    ROWS,  # of y, of a walk
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
    STRIPS: tl.constexpr,  # side by side
    WIDTH: tl.constexpr,  # pixels of a strip
    DEPTH: tl.constexpr,
):
    RESULTS: tl.constexpr = WIDTH // 2 - 1  # of a row of a strip
    CODES: tl.constexpr = codes is not None
    channel_blocks, columns, walks = blocks_of(OC, CHANNELS), blocks_of(PW, RESULTS * STRIPS), blocks_of(PH, ROWS)
    pid = tl.program_id(0)
    n = (pid % channel_blocks).to(INDEX) * CHANNELS + tl.arange(0, CHANNELS)
    left = (pid // channel_blocks % columns).to(INDEX) * RESULTS * STRIPS
    top = (pid // channel_blocks // columns % walks).to(INDEX) * ROWS
    g = (pid // channel_blocks // columns // walks).to(tl.int64)
    j = tl.arange(0, S2)
    x += g * S * x_b
    p = tl.arange(0, WIDTH * STRIPS)
    p = p % STRIPS * 2 * RESULTS + p // STRIPS  # columns of the convolution, behind the first
    SPAN: tl.constexpr = (STRIPS - 1) * 2 * RESULTS + WIDTH - 1
    ow = 2 * left - POOL[5]
    negative_slope = number(slope, slope_at, T)
    term = None
    if bias is not None:
        term = tl.load(bias + n, mask=n < OC, other=0.0).to(T)[:, None]
    q = tl.arange(0, WIDTH // 2 * STRIPS)
    pw = left + q % STRIPS * RESULTS + q // STRIPS
    inside = ((q // STRIPS < RESULTS) & (pw < PW))[:, None] & (n < OC)[None, :]
    inside = inside[:, :, None] & (j < S)[None, None, :]
    rows = sent_rows(order, g, S, S2)
    # Every second row is a window's last, and the first of the next one below.
    best = tl.full((CHANNELS, WIDTH // 2, STRIPS * S2), 0, tl.int32 if CODES else T)
    for step in tl.range(2 * tl.minimum(ROWS, PH - top) + 1, disable_licm=CODES):
        oh = 2 * top - POOL[4] + step
        z = sums(
            x, weight, oh * STRIDE[0] - PAD[0], ow * STRIDE[1] - PAD[1], p * STRIDE[1], SPAN * STRIDE[1], n, j,
            (x_b, x_c, x_h, x_w), (H, W), K, OC, DILATION, RUNS, PRECISION, S, DEPTH, T, INDEX,
        )  # fmt: skip
        if term is not None:
            z += term
        valid = (ow + p >= 0) & (ow + p < OW) & (oh >= 0) & (oh < OH)
        row = largest_of_three(z, valid, KIND, negative_slope, S2, WIDTH, CODES, x.dtype.element_ty)
        if step % 2 == 1:
            best = larger(best, behind(row, 3, CODES))
        else:
            if step > 0:
                best = larger(best, behind(row, 6, CODES))
                values = values_of(best, KIND, x.dtype.element_ty) if CODES else best.to(x.dtype.element_ty)
                ph = top + step // 2 - 1
                at = ((ph * PW + pw) * y_p)[:, None] + (n * y_c)[None, :]
                if CODES:
                    code = tl.reshape(codes_of(best, KIND, x.dtype.element_ty), (CHANNELS, WIDTH // 2 * STRIPS, S2))
                    to = codes + ((g * S + j) * OC * PH * PW)[None, None, :] + at[:, :, None]
                    tl.store(to, tl.permute(code, (1, 0, 2)), mask=inside)
                values = tl.reshape(values, (CHANNELS, WIDTH // 2 * STRIPS, S2))
                out = mixtures(values, coeffs, g, PRECISION, S, S2, PARTS, T)
                tl.store(y + (rows * OC * PH * PW)[None, None, :] + at[:, :, None], wire(out, y), mask=inside)
            best = row
