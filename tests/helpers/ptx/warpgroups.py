"""Products of a warpgroup: four warps together, of matrices in shared memory or registers (PTX ISA, section 9.7.15).

A descriptor says how a matrix lies there: in lines of a swizzle's length, in which pieces of 16 bytes change places. A
line holds neighbours in K, eight lines beneath each other; where ``transposed``, neighbours in M or N, for eight K.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arithmetic import from_bfloat16
from .memory import WARP, PtxError
from .tensor_cores import left_matrices

WARPGROUP = 4 * WARP
ROWS = 64
_SWIZZLES = {1: 128, 2: 64, 3: 32}  # bytes
_SHAPE = re.compile(r"m64n(\d+)k(\d+)$")
_DEPTH = {"bf16": 16, "f16": 16, "tf32": 8}


def shape_of(shape: str, kinds: list[str]) -> tuple[int, int, str]:
    """N, K and what is multiplied, of modifiers such as m64n8k16, [f32, bf16, bf16]. Raises PtxError for others."""
    match = _SHAPE.match(shape)
    if match is None or kinds[0] != "f32" or kinds[1] != kinds[2] or _DEPTH.get(kinds[1]) != int(match[2]):
        raise PtxError(f"cannot run wgmma of {shape}, {' '.join(kinds)}")
    return int(match[1]), int(match[2]), kinds[1]


def element_bytes(kind: str) -> int:
    return 4 if kind == "tf32" else 2


def places(descriptor: int, rows: int, depth: int, size: int, transposed: bool) -> NDArray[np.int64]:
    """Where the elements of ``size`` bytes are in shared memory: [rows, depth]"""
    start, leading, stride = ((descriptor >> at & 0x3FFF) << 4 for at in (0, 16, 32))
    swizzle = _SWIZZLES.get(descriptor >> 62)
    if swizzle is None or descriptor & ~(3 << 62 | 0x3FFF_3FFF_3FFF):
        raise PtxError(f"cannot run wgmma with the descriptor {descriptor:#x}")
    row, k = np.arange(rows)[:, None], np.arange(depth)[None, :]
    if transposed:
        line = swizzle // size
        at = row % line * size + row // line * leading + k % 8 * swizzle + k // 8 * stride
    else:
        at = k * size + row % 8 * swizzle + row // 8 * stride
    at = at + start
    return at ^ (at >> 7 & swizzle // 16 - 1) << 4


def numbers(words: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """What the words of elements mean."""
    if kind == "bf16":
        return from_bfloat16(words).astype(np.float64)
    if kind == "f16":
        return words.view(np.float16).astype(np.float64)
    return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def left_of(words: list[Any], kind: str) -> NDArray[np.float64]:
    """The left matrix from registers: [warpgroup, 64, K]"""
    of_warps = left_matrices(words, kind)
    return of_warps.reshape(-1, ROWS, of_warps.shape[2]).astype(np.float64)


def sums_of(words: list[Any]) -> NDArray[np.float64]:
    """Sums as lanes hold them: [warpgroup, 64, N]"""
    held = np.stack([word.view(np.float32) for word in words], -1)
    held = held.reshape(-1, 4, 8, 4, len(words) // 4, 2, 2)  # warpgroup, warp, g, t, columns / 8, row + 8, odd
    return held.transpose(0, 1, 5, 2, 4, 3, 6).reshape(len(held), ROWS, -1).astype(np.float64)


def words_of(sums: NDArray[np.float64]) -> list[Any]:
    """The reverse."""
    held = sums.astype(np.float32).reshape(len(sums), 4, 2, 8, -1, 4, 2).transpose(0, 1, 3, 5, 4, 2, 6)
    held = held.reshape(len(sums) * WARPGROUP, -1)
    return [np.ascontiguousarray(held[:, i]).view(np.uint32) for i in range(held.shape[1])]
