"""What the kernels share: coefficients, rows, activations and the windows of a max-pool."""

from __future__ import annotations

import triton
import triton.language as tl

NEGATIVE = tl.constexpr(0x80)
WINDOW = tl.constexpr(0x7F)
RELU = tl.constexpr(1)
LEAKY = tl.constexpr(2)


@triton.jit
def column(coeffs, g, j, TRANSPOSE: tl.constexpr, S: tl.constexpr, S2: tl.constexpr, T: tl.constexpr):
    """A[g, :, j] as [S2] in T, zero past S; with TRANSPOSE A[g, j, :]."""
    i = tl.arange(0, S2)
    at = j * S + i if TRANSPOSE else i * S + j
    return tl.load(coeffs + g * S * S + at, mask=i < S, other=0.0).to(T)


@triton.jit
def mixture(coeffs, g, i, v, TRANSPOSE: tl.constexpr, S: tl.constexpr, S2: tl.constexpr, T: tl.constexpr):
    """Mixture i of the tiles v [S2, BLOCK] of all images of group g; with TRANSPOSE image i of its mixtures."""
    return tl.sum(column(coeffs, g, i, not TRANSPOSE, S, S2, T)[:, None] * v, axis=0)


@triton.jit
def part(c, second, PARTS: tl.constexpr, to: tl.constexpr):
    """Of coefficients in so many parts that the dtype ``to`` holds the first, or where ``second`` the other one.

    Of 16 bits: what it has of a float32, rounded towards zero, and what is left. Neither is zero or of another sign
    unless the coefficient is, so that the product of an infinite value stays infinite.
    """
    if PARTS == 1:
        return c
    elif to.primitive_bitwidth > 16:
        return 0.5 * c
    else:
        KEPT: tl.constexpr = -0x10000 if to == tl.bfloat16 else -0x2000  # 8 or 11 digits
        LEAST: tl.constexpr = 1e-30 if to == tl.bfloat16 else 6e-8  # of what it holds, or near it
        leading = (c.to(tl.int32, bitcast=True) & KEPT).to(tl.float32, bitcast=True)
        left = tl.maximum(tl.abs(c - leading), LEAST)
        left = tl.where(c == 0, 0.0, tl.where(c < 0, -left, left))
        return tl.where(second, left, leading)


@triton.jit
def mixtures(v, coeffs, g, PRECISION: tl.constexpr, S: tl.constexpr, S2: tl.constexpr, PARTS: tl.constexpr,
             T: tl.constexpr):  # fmt: skip
    """The mixtures [P, N, S2] of v [N, P, S2]: the values of N channels and P pixels of all images of group g.

    A product by the key, transposed, whose left matrix are sums of tensor cores as they lie, in the dtype of v. The key
    is not rounded to it: its parts are multiplied by the same values. A row of fewer than 8 images is filled with other
    pixels; each is multiplied alone, with zeros in the others' place, as one of them may not be finite.
    """
    N: tl.constexpr = v.shape[0]
    TOGETHER: tl.constexpr = 8 // S2 if S2 < 8 else 1  # pixels
    P: tl.constexpr = v.shape[1] // TOGETHER
    ROW: tl.constexpr = TOGETHER * S2
    k, n = tl.arange(0, PARTS * ROW), tl.arange(0, ROW)
    i, j = (n % S2)[None, :], (k % S2)[:, None]
    c = tl.load(coeffs + g * S * S + i * S + j, mask=(i < S) & (j < S), other=0.0).to(T)
    c = part(c, (k >= ROW)[:, None], PARTS, v.dtype).to(v.dtype)
    v = tl.reshape(v, (N, P, ROW))
    if S < S2:
        v = tl.where((n % S2 < S)[None, None, :], v, 0.0)
    out = tl.zeros((P * N, ROW), T)
    for pixel in tl.static_range(TOGETHER):
        mine = n // S2 == pixel
        left = tl.where(mine[None, None, :], v, 0.0) if TOGETHER > 1 else v
        left = tl.broadcast_to(tl.permute(left, (1, 0, 2))[:, :, None, :], (P, N, PARTS, ROW))
        product = by_key(tl.reshape(left, (P * N, PARTS * ROW)), c, PRECISION, T)
        out = tl.where(mine[None, :], product, out) if TOGETHER > 1 else product
    out = tl.reshape(out, (P, N, TOGETHER, S2))
    return tl.reshape(tl.permute(out, (0, 2, 1, 3)), (P * TOGETHER, N, S2))


@triton.jit
def by_key(v, c, PRECISION: tl.constexpr, T: tl.constexpr):
    """v c; for TF32 of three products, so that neither is rounded once more."""
    return tl.dot(v, c, input_precision="tf32x3" if PRECISION == "tf32" else "ieee", out_dtype=T)


@triton.jit
def wire(v, to):
    """``v`` as it is stored to the pointer ``to``: for int8 as ``reference.whole``.

    Of a number up to 127, added to 1.5 * 2^23, only the nearest whole number is left, the even one of two.
    """
    if to.dtype.element_ty == tl.int8:
        v = tl.minimum(tl.maximum(tl.where(v == v, v, 0.0), -127.0), 127.0)
        return ((v + 12582912.0) - 12582912.0).to(tl.int8)
    else:
        return v


@triton.jit
def sent_rows(order, g, S: tl.constexpr, S2: tl.constexpr):
    """The rows that the mixtures of group g are sent as: int64 [S2], 0 past S."""
    i = tl.arange(0, S2)
    return tl.load(order + g * S + i, mask=i < S, other=0)


@triton.jit
def number(value, at, T: tl.constexpr):
    """A number given by value or, where ``at`` is one, by its address; in T."""
    if at is None:
        return tl.full((1,), value, T)
    else:
        return tl.load(at).to(T)


@triton.jit
def activate(z, KIND: tl.constexpr, slope):
    """As PyTorch: NaN stays, the slope applies where z < 0."""
    if KIND == RELU:
        z = tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if KIND == LEAKY:
        z = tl.where(z < 0, z * slope, z)
    return z


@triton.jit
def pooled(best, code, z, valid, k, KIND: tl.constexpr, slope, CODES: tl.constexpr, WINDOW: tl.constexpr):
    """Takes element k of a window of so many, before its activation, into the running maximum and its code.

    With PyTorch's rules: the first of equals wins, a NaN wins over all. ``best`` starts at -inf, ``code`` at -1.
    """
    a = activate(z, KIND, slope)
    if WINDOW == 1:
        return a, tl.where(z > 0, k, k + NEGATIVE)
    better = (a > best) | (a != a)
    if CODES:
        better = valid & (better | (code < 0))
        code = tl.where(better, tl.where(z > 0, k, k + NEGATIVE), code)
    else:
        better = valid & better
    return tl.where(better, a, best), code


@triton.jit
def split(e, C, H, W, LAST: tl.constexpr):
    """Channel, row and column of element e of an image [C, H, W] (LAST: [H, W, C])."""
    if LAST:
        return e % C, e // C // W, e // C % W
    else:
        return e // W // H, e // W % H, e % W


@triton.jit
def offset(c, h, w, C, H, W, LAST: tl.constexpr):
    """Where that element lies: the inverse of ``split``."""
    if LAST:
        return (h * W + w) * C + c
    else:
        return (c * H + h) * W + w


@triton.jit
def blocks_of(n, BLOCK: tl.constexpr):
    """How many blocks hold n elements, at least one; unlike tl.cdiv also for an n of 32 bits just below 2^31."""
    return (n - 1) // BLOCK + 1


@triton.jit
def tile(n, BLOCK: tl.constexpr, INDEX: tl.constexpr):
    """The program's group, and its block of the n elements of an image."""
    blocks = blocks_of(n, BLOCK)
    pid = tl.program_id(0)
    return (pid // blocks).to(tl.int64), (pid % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
