"""unmix_linear: out[g*S+j] = sum_i A[g,i,j] (y[order[g*S+i]] W^T) + bias. Rows are gathered, multiplied, un-mixed.

A tile holds rows of many groups (one group has only S): for one i after the other, row i of each is multiplied and
added to all S results of its group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import tiles
from .launch import constants, launch, precision, reach
from .mixing import blocks_of


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
    S: tl.constexpr,
    S2: tl.constexpr,
    T: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    column_blocks = blocks_of(N, COLUMNS)
    pid = tl.program_id(0)
    n = (pid % column_blocks).to(INDEX) * COLUMNS + tl.arange(0, COLUMNS)
    r = (pid // column_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    g, m = r // M, r % M
    inside = g < G
    j = tl.arange(0, S2)
    mixed = tl.zeros((S2, ROWS, COLUMNS), T)
    for i in range(S):
        sent = tl.load(order + g * S + i, mask=inside, other=0)
        product = tl.zeros((ROWS, COLUMNS), T)
        for k0 in range(0, K, DEPTH):
            k = (k0 + tl.arange(0, DEPTH)).to(INDEX)
            rows = y + ((sent * M + m) * K)[:, None] + k[None, :]
            rows = tl.load(rows, mask=inside[:, None] & (k < K)[None, :], other=0.0)
            part = weight + (k * w_k)[:, None] + (n * w_n)[None, :]
            part = tl.load(part, mask=(k < K)[:, None] & (n < N)[None, :], other=0.0)
            product = tl.dot(rows, part, product, input_precision=PRECISION, out_dtype=T)
        at = coeffs + (g * S * S + i * S)[None, :] + j[:, None]
        a = tl.load(at, mask=(j < S)[:, None] & inside[None, :], other=0.0).to(T)
        mixed += a[:, :, None] * product[None, :, :]
    if bias is not None:
        mixed += tl.load(bias + n, mask=n < N, other=0.0).to(T)[None, None, :]
    row = ((g * S)[None, :] + j[:, None]) * M + m[None, :]
    mask = ((j < S)[:, None] & inside[None, :])[:, :, None] & (n < N)[None, None, :]
    tl.store(out + (row * N)[:, :, None] + n[None, None, :], mixed, mask=mask)


def unmix_linear(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Fills ``out`` [B, ..., N] from ``y`` [B, ..., K], both contiguous."""
    if not out.numel():
        return
    groups, size = coeffs.shape[:2]
    n, k = weight.shape
    middle = out.numel() // (n * y.shape[0])
    tile = tiles.product(size, groups * middle, n, k, y.dtype)
    launch(
        unmix_linear_kernel, triton.cdiv(groups * middle, tile.rows) * triton.cdiv(n, tile.columns), y, weight, bias,
        out, coeffs, order, *weight.stride(), groups, middle, k, n,
        PRECISION=precision(y, torch.backends.cuda.matmul),
        ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, num_warps=tile.warps,
        **constants(coeffs, y.dtype, max(reach(weight), n, k)),
    )  # fmt: skip
