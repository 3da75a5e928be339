"""unmix_linear: out[g*S+j] = sum_i A[g,i,j] (y[order[g*S+i]] W^T) + bias. Rows are gathered, multiplied, un-mixed.

A tile is one product, of the rows of whole groups, as columns; what un-mixes its sums, as they lie, is another one for
each group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch, parts, precision, reach
from .mixing import blocks_of, by_key, part


@triton.jit
def unmix_linear_kernel(
    y,  # [B, M, K]
    weight,  # [N, K], any strides
    bias,  # [N] or None
    out,  # [B, M, N]
    coeffs,  # [G, S, S]
    order,  # [B]
    w_n,
    w_k,
    G,
    M,
    K,
    N,
    PRECISION: tl.constexpr,
    PARTS: tl.constexpr,
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    GROUPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    ROW: tl.constexpr = 8 if S2 < 8 else S2
    column_blocks = blocks_of(N, COLUMNS)
    pid = tl.program_id(0)
    n = (pid % column_blocks).to(INDEX) * COLUMNS + tl.arange(0, COLUMNS)
    first = (pid // column_blocks).to(tl.int64) * GROUPS  # a group stands for its rows at one m in [0, M)
    q = tl.arange(0, GROUPS * ROW)
    g, m, i = (first + q // ROW) // M, (first + q // ROW) % M, q % ROW
    real = (g < G) & (i < S)
    row = (tl.load(order + g * S + i, mask=real, other=0) * M + m) * K
    z = tl.zeros((COLUMNS, GROUPS * ROW), T)
    for k0 in range(0, K, DEPTH):
        k = (k0 + tl.arange(0, DEPTH)).to(INDEX)
        rows = tl.load(y + row[:, None] + k[None, :], mask=real[:, None] & (k < K)[None, :], other=0.0)
        at = weight + (n * w_n)[:, None] + (k * w_k)[None, :]
        weights = tl.load(at, mask=(n < N)[:, None] & (k < K)[None, :], other=0.0)
        z = tl.dot(weights, tl.trans(rows), z, input_precision=PRECISION, out_dtype=T)
    r, k, i = first + tl.arange(0, GROUPS), tl.arange(0, PARTS * ROW), tl.arange(0, ROW)[None, None, :]
    g, m, j = (r // M)[:, None, None], (r % M)[:, None, None], (k % ROW)[None, :, None]
    c = tl.load(coeffs + (g * S + j) * S + i, mask=(g < G) & (j < S) & (i < S), other=0.0).to(T)
    v = z.to(y.dtype.element_ty)
    c = part(c, (k >= ROW)[None, :, None], PARTS, v.dtype).to(v.dtype)
    v = tl.permute(tl.reshape(v, (COLUMNS, GROUPS, ROW)), (1, 0, 2))
    v = tl.broadcast_to(v[:, :, None, :], (GROUPS, COLUMNS, PARTS, ROW))
    unmixed = by_key(tl.reshape(v, (GROUPS, COLUMNS, PARTS * ROW)), c, PRECISION, T)
    if bias is not None:
        unmixed += tl.load(bias + n, mask=n < N, other=0.0).to(T)[None, :, None]
    at = out + ((g * S + i) * M + m) * N + n[None, :, None]
    tl.store(at, unmixed, mask=(g < G) & (i < S) & (n < N)[None, :, None])


def unmix_linear(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Fills ``out`` [B, ..., N] from ``y`` [B, ..., K], both contiguous."""
    if not out.numel():
        return
    groups, size = coeffs.shape[:2]
    n, k = weight.shape
    middle = out.numel() // (n * y.shape[0])
    tile = tiles.product(size, groups * middle, n, k, y.dtype)
    launch(
        unmix_linear_kernel, triton.cdiv(groups * middle, tile.items) * triton.cdiv(n, tile.columns), y, weight, bias,
        out, coeffs, order, *weight.stride(), groups, middle, k, n,
        PRECISION=precision(y, torch.backends.cuda.matmul), PARTS=parts(coeffs, y.dtype),
        GROUPS=tile.items, COLUMNS=tile.columns, DEPTH=tile.depth, num_warps=tile.warps,
        **constants(coeffs, y.dtype, max(reach(weight), n, k)),
    )  # fmt: skip
