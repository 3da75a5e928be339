"""What instructions compute, over arrays of lanes (PTX ISA, section 9.7)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def divided(a: Array, b: Array) -> Array:
    """Integers, towards zero; what is divided by zero is anything."""
    safe = np.where(b == 0, 1, b).astype(a.dtype)
    return np.where((a % safe != 0) & ((a < 0) != (safe < 0)), a // safe + 1, a // safe).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    """Of ``divided``."""
    return (a - divided(a, b) * b).astype(a.dtype)


def shifted(a: Array, by: Array, left: bool) -> Array:
    """A shift by the width or more leaves what one by all bits in turn would."""
    bits = a.dtype.itemsize * 8
    most = np.minimum(by, bits - 1).astype(a.dtype)
    if left:
        return np.where(by < bits, a << most, 0).astype(a.dtype)
    if a.dtype.kind == "i":
        return a >> most
    return np.where(by < bits, a >> most, 0).astype(a.dtype)


def high_product(a: Array, b: Array) -> Array:
    """The upper half of a product of 16 or 32 bits."""
    bits = a.dtype.itemsize * 8
    wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return (a.astype(wide) * b.astype(wide) >> bits).astype(a.dtype)


def wide_product(a: Array, b: Array) -> Array:
    """Of twice the bits."""
    wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
    return a.astype(wide) * b.astype(wide)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c: of float32 rounded once, but for ties that float64 makes; of float64 with the product's error."""
    if a.dtype == np.float32:
        return (a.astype(np.float64) * b + c).astype(np.float32)
    product = a * b
    total = product + c
    error = _product_error(a, b, product)
    part = total - product
    error += (product - (total - part)) + (c - part)
    return np.where(np.isfinite(error), total + error, total)


def _product_error(a: Array, b: Array, product: Array) -> Array:
    """By halves of 26 bits (Dekker 1971)."""
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    return a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)


def _halves(a: Array) -> tuple[Array, Array]:
    scaled = a * (2.0**27 + 1)
    upper = scaled - (scaled - a)
    return upper, a - upper


def compared(comparison: str, a: Array, b: Array) -> Array:
    """As setp: of floats those that end in u hold where a number is missing; ``lo`` to ``hs`` are unsigned."""
    if comparison == "num":
        return ~(np.isnan(a) | np.isnan(b))
    if comparison == "nan":
        return np.isnan(a) | np.isnan(b)
    unordered = comparison.endswith("u") and len(comparison) == 3
    name = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}.get(comparison, comparison[:2])
    plain = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal,
    }[name](a, b)  # fmt: skip
    if a.dtype.kind != "f":
        return plain
    missing = np.isnan(a) | np.isnan(b)
    return plain | missing if unordered else plain & ~missing


def permuted(a: Array, b: Array, selector: Array) -> Array:
    """prmt: each nibble of the selector names a byte of the two words, or, with its top bit, that byte's sign."""
    both = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
    out = np.zeros_like(both)
    for i in range(4):
        nibble = selector.astype(np.uint64) >> np.uint64(4 * i)
        byte = both >> ((nibble & np.uint64(7)) * np.uint64(8)) & np.uint64(0xFF)
        sign = np.where(byte & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
        out |= np.where(nibble & np.uint64(8), sign, byte) << np.uint64(8 * i)
    return out.astype(np.uint32)


def field(a: Array, begin: Array, length: Array) -> Array:
    """bfe: bits of ``a``, of signed ones with the sign of the last."""
    unsigned, bits = np.dtype(f"u{a.dtype.itemsize}"), a.dtype.itemsize * 8
    begin, length = (np.minimum(x.astype(np.int64) & 0xFF, bits) for x in (begin, length))
    ones = _ones(length, unsigned)
    taken = shifted(a.view(unsigned), begin, left=False) & ones
    sign = shifted(a.view(unsigned), np.minimum(begin + length - 1, bits - 1), left=False) & unsigned.type(1)
    negative = (a.dtype.kind == "i") & (length > 0) & (sign != 0)
    return np.where(negative, taken | ~ones, taken).astype(unsigned).view(a.dtype)


def _ones(count: Array, kind: Any) -> Array:
    return ~shifted(np.full(count.shape, ~kind.type(0)), count, left=True)


def inserted(a: Array, b: Array, begin: Array, length: Array) -> Array:
    """bfi: the lowest bits of ``a`` in a field of ``b``."""
    begin, length = (np.minimum(x.astype(np.int64) & 0xFF, 8 * b.dtype.itemsize) for x in (begin, length))
    mask = shifted(_ones(length, b.dtype), begin, left=True)
    return b & ~mask | shifted(a, begin, left=True) & mask


def to_integer(a: Array, rounding: str, kind: Any) -> Array:
    """Of floats, to the nearest one that there is; zero where it is not a number."""
    rounded = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[rounding](a.astype(np.float64))
    limits = np.iinfo(kind)
    inside = np.clip(np.nan_to_num(rounded, nan=0.0), float(limits.min), float(limits.max))
    top = inside >= float(limits.max)  # which float64 may hold no better than as a power of two
    return np.where(top, limits.max, np.where(top, 0, inside).astype(kind)).astype(kind)


def to_bfloat16(a: Array) -> Array:
    """Of float32 in 16 bits, to nearest even."""
    bits = a.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(a), np.uint32(0x7FFF), rounded).astype(np.uint16)


def from_bfloat16(a: Array) -> Array:
    """Of 16 bits."""
    return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_tf32(a: Array) -> Array:
    """Of float32, in 32 bits: to nearest, ties away from zero."""
    bits = a.view(np.uint32)
    rounded = bits + np.uint32(0x1000) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(a), rounded, bits & np.uint32(0xFFFFE000) | np.isnan(a) * np.uint32(0x7FFFE000))


def larger_of_pairs(a: Array, b: Array, bfloat16: bool) -> Array:
    """max.NaN of words of two. Of two zeros +0 is the larger one."""
    out = np.zeros_like(a)
    for shift in (np.uint32(0), np.uint32(16)):
        x, y = ((word >> shift).astype(np.uint16) for word in (a, b))
        if bfloat16:
            half = to_bfloat16(np.maximum(from_bfloat16(x), from_bfloat16(y)))
        else:
            half = np.maximum(x.view(np.float16), y.view(np.float16)).view(np.uint16)
        half = np.where((x | y) << np.uint16(1) == 0, x & y, half)
        out |= half.astype(np.uint32) << shift
    return out


def reciprocal(a: Array) -> Array:
    """rcp.approx.ftz.f64: the upper word of it counts."""
    return ((1.0 / a).view(np.uint64) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)
