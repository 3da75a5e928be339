"""group_mix: y[order[g*S+i]] = sum_j A[g,i,j] x[g*S+j], for rows of any shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..checks import check_out, check_reverse_mode, check_tensor
from ..keys import MixKey, check_key
from ..native import C
from .library import (
    DTYPE_CODE,
    dense,
    kernel_for,
    key_args,
    layout_of,
    place,
    recycled,
    register,
    register_autograd,
    written,
)


def native(x: Tensor, coeffs: Tensor, order: Tensor, out: Tensor, *, transpose: bool = False) -> None:
    """The kernel behind group_mix and, with ``transpose``, group_unmix. ``x`` and ``out`` are dense alike."""
    coeffs, order, key = key_args(x, coeffs, order)
    row = x.numel() // max(1, x.shape[0])
    C.group_mix(
        x.data_ptr(), out.data_ptr(), DTYPE_CODE[x.dtype], row, transpose, coeffs.data_ptr(), order.data_ptr(), key,
        place(x),
    )  # fmt: skip


def triton(x: Tensor, coeffs: Tensor, order: Tensor, out: Tensor, *, transpose: bool = False) -> None:
    """The same in Triton."""
    from ..triton.group_mix import group_mix

    coeffs, order, _ = key_args(x, coeffs, order)
    group_mix(x, coeffs, order, out, transpose=transpose)


def fresh(kernel: Callable[..., None], x: Tensor, coeffs: Tensor, order: Tensor) -> Tensor:
    """The result of either kernel in new memory."""
    x = dense(x)
    out = recycled(torch.empty_like(x))
    kernel(x, coeffs, order, out)
    return out


def _reference(x: Tensor, coeffs: Tensor, order: Tensor) -> Tensor:
    x = dense(x)
    return torch.empty_like(x).copy_(reference.group_mix(x, MixKey._wrap(coeffs, order)))


def fake(x: Tensor, coeffs: Tensor, order: Tensor) -> Tensor:
    """A result has the input's shape, dtype and layout."""
    return torch.empty_like(dense(x))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.facemix_ops.group_unmix(grad, *ctx.saved_tensors), None, None


register(
    "group_mix(Tensor x, Tensor coeffs, Tensor order) -> Tensor",
    native=native,
    triton=triton,
    fresh=fresh,
    reference=_reference,
    fake=fake,
)
register_autograd("group_mix", _backward, _setup)


def apply(op: str, x: Tensor, key: MixKey, out: Tensor | None) -> Tensor:
    """Checks, then group_mix or group_unmix."""
    argument = "x" if op == "group_mix" else "y"
    check_tensor(op, argument, x)
    check_key(op, key, x, argument)
    check_reverse_mode(op, x)
    if out is None:
        return getattr(torch.ops.facemix_ops, op)(x, key.coeffs, key.order)
    x = dense(x.resolve_neg())
    check_out(op, out, x.shape, x.dtype, layout_of(x), x)
    kernel = kernel_for(op, x)
    if kernel is None:
        return out.copy_(getattr(torch.ops.facemix_ops, op)(x, key.coeffs, key.order))
    kernel(x, key.coeffs, key.order, out)
    return written(out)


def group_mix(x: Tensor, key: MixKey, *, out: Tensor | None = None) -> Tensor:
    """Mixes each group of rows with its private matrix and shuffles the rows of all groups (paper, eq. 4, section 3.5).

    ``y[order[g*S+i]] = sum_j A[g,i,j] * x[g*S+j]``

    Args:
        x: [B, ...], float32, float64, bfloat16 or float16; B = key.batch. Sums are taken in float32 or better.
        key: a :class:`~facemix_ops.MixKey`.
        out: a buffer to reuse, like a fresh result (eager mode, without gradients).

    Returns:
        [B, ...], dtype and layout of ``x``. Its adjoint, and its inverse, is :func:`group_unmix`.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
        NotImplementedError: in forward-mode automatic differentiation and in gradients of torch.func, which PyTorch's
            custom ops do not have.
    """
    return apply("group_mix", x, key, out)
