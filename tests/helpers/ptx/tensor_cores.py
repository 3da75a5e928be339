"""Instructions of a whole warp: products of matrices, reads of their fragments, and values of other lanes.

Fragments are as in the PTX ISA, sections 9.7.14.5 and 9.7.15: lane 4 * g + t holds two neighbours of row g, or g + 8,
from column 2t, or 2t + 8, on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import from_bfloat16
from .memory import WARP, PtxError

Words = NDArray[np.uint32]

SHAPES = {("m16n8k16", "f16"), ("m16n8k16", "bf16"), ("m16n8k16", "f64"), ("m16n8k8", "tf32")}


def _by_lane(words: list[Words]) -> NDArray[Any]:
    """[warp, g, t, word]"""
    return np.stack(words, -1).reshape(-1, 8, 4, len(words))


def _pairs(words: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """Two floats of each word: [..., 2]"""
    halves = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 2)
    return from_bfloat16(halves) if kind == "bf16" else halves.view(np.float16).astype(np.float32)


def _numbers(words: list[Any], kind: str) -> NDArray[Any]:
    """One float of each word: [warp, g, t, word]"""
    if kind == "f64":
        return _by_lane([word.view(np.float64) for word in words])
    return _by_lane([(word & np.uint32(0xFFFFE000)).view(np.float32) for word in words])


def left_matrices(words: list[Any], kind: str) -> NDArray[Any]:
    """Of every warp, from its registers: [warp, 16, K]"""
    if kind in ("tf32", "f64"):
        left = _numbers(words, kind).reshape(-1, 8, 4, len(words) // 2, 2)  # warp, g, t, K / 4, row + 8
        return left.transpose(0, 4, 1, 3, 2).reshape(-1, 16, 2 * len(words))
    left = _pairs(_by_lane(words), kind).reshape(-1, 8, 4, 2, 2, 2)  # warp, g, t, K + 8, row + 8, odd
    return left.transpose(0, 4, 1, 3, 2, 5).reshape(-1, 16, 16)


def _right_matrices(words: list[Any], kind: str) -> NDArray[Any]:
    """[warp, K, 8]"""
    if kind in ("tf32", "f64"):
        return _numbers(words, kind).transpose(0, 3, 2, 1).reshape(-1, 4 * len(words), 8)
    return _pairs(_by_lane(words), kind).transpose(0, 3, 2, 4, 1).reshape(-1, 16, 8)


def multiplied(shape: str, kind: str, a: list[Any], b: list[Any], d: list[Any]) -> list[Any]:
    """d + a * b of every warp; words of float32, or of float64 where that is multiplied."""
    if (shape, kind) == ("m8n8k4", "f64"):
        left, right = _numbers(a, kind)[..., 0], _numbers(b, kind)[..., 0].transpose(0, 2, 1)
        exact = _numbers(d, kind).reshape(-1, 8, 8) + left @ right
        out = exact.reshape(-1, 2)
        return [np.ascontiguousarray(out[:, i]).view(np.uint64) for i in range(2)]
    if (shape, kind) not in SHAPES:
        raise PtxError(f"cannot run mma of {shape}, {kind}")
    number, word = (np.float64, np.uint64) if kind == "f64" else (np.float32, np.uint32)
    left, right = left_matrices(a, kind), _right_matrices(b, kind)
    sums = _by_lane([each.view(number) for each in d]).reshape(-1, 8, 4, 2, 2)  # warp, g, t, row + 8, odd
    sums = sums.transpose(0, 3, 1, 2, 4).reshape(-1, 16, 8)
    sums = (sums.astype(np.float64) + left.astype(np.float64) @ right.astype(np.float64)).astype(number)
    out = sums.reshape(-1, 2, 8, 4, 2).transpose(0, 2, 3, 1, 4).reshape(-1, 4)
    return [np.ascontiguousarray(out[:, i]).view(word) for i in range(4)]


def fragments(rows: NDArray[np.uint16], transposed: bool) -> NDArray[np.uint32]:
    """Of 8 x 8 matrices [warp, row, column] of 16 bits, what each lane of the warp holds: [warp, lane]."""
    matrices = rows.transpose(0, 2, 1) if transposed else rows
    return np.ascontiguousarray(matrices).view(np.uint32).reshape(-1, WARP)


def rows_of(words: NDArray[np.uint32], transposed: bool) -> NDArray[np.uint16]:
    """The reverse."""
    matrices = np.ascontiguousarray(words).view(np.uint16).reshape(-1, 8, 8)
    return np.ascontiguousarray(matrices.transpose(0, 2, 1)) if transposed else matrices


def shuffled(values: Words, mode: str, by: Words) -> Words:
    """Of other lanes of the warp."""
    lanes = np.arange(len(values))
    lane, first = lanes % WARP, lanes // WARP * WARP
    by = by.astype(np.int64)
    source = {"bfly": lane ^ by, "idx": by % WARP, "up": lane - by, "down": lane + by}[mode]
    return values[np.where((source >= 0) & (source < WARP), first + source, lanes)]
