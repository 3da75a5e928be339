"""group_unmix: x[g*S+j] = sum_i A[g,i,j] y[order[g*S+i]]; the adjoint and inverse of group_mix."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..keys import MixKey
from .group_mix import apply, fake, fresh, native, triton
from .library import dense, register, register_autograd


def _reference(y: Tensor, coeffs: Tensor, order: Tensor) -> Tensor:
    y = dense(y)
    return torch.empty_like(y).copy_(reference.group_unmix(y, MixKey._wrap(coeffs, order)))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.facemix_ops.group_mix(grad, *ctx.saved_tensors), None, None


register(
    "group_unmix(Tensor y, Tensor coeffs, Tensor order) -> Tensor",
    native=partial(native, transpose=True),
    triton=partial(triton, transpose=True),
    fresh=fresh,
    reference=_reference,
    fake=fake,
)
register_autograd("group_unmix", _backward, _setup)


def group_unmix(y: Tensor, key: MixKey, *, out: Tensor | None = None) -> Tensor:
    """Un-shuffles and un-mixes rows (paper, eq. 6): the inverse of :func:`group_mix` under the same key.

    ``x[g*S+j] = sum_i A[g,i,j] * y[order[g*S+i]]``

    It applies the transposed matrices. That is the adjoint of the mix for any matrices, and the inverse because those
    of a :class:`~facemix_ops.MixKey` are orthogonal.

    Args:
        y: [B, ...], float32, float64, bfloat16 or float16; B = key.batch. Sums are taken in float32 or better.
        key: the key that the rows were mixed with.
        out: a buffer to reuse, like a fresh result (eager mode, without gradients).

    Returns:
        [B, ...], dtype and layout of ``y``.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
        NotImplementedError: in forward-mode automatic differentiation and in gradients of torch.func, which PyTorch's
            custom ops do not have.
    """
    return apply("group_unmix", y, key, out)
