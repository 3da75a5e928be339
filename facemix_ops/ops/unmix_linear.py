"""unmix_linear: un-shuffle, un-mix and the last layer in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..checks import bad_value, check_out, check_reverse_mode, check_tensor
from ..keys import MixKey, check_key
from ..native import C
from .library import (
    CUDA,
    DTYPE_CODE,
    address,
    allows_tf32,
    autocast,
    kernel_for,
    key_args,
    place,
    plain,
    register,
    register_autograd,
    written,
)


def _native(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    coeffs, order, key = key_args(y, coeffs, order)
    y, weight, bias = plain(y), plain(weight), plain(bias)
    n, k = weight.shape
    middle = out.numel() // max(1, n * y.shape[0])
    C.unmix_linear(
        y.data_ptr(), weight.data_ptr(), address(bias), out.data_ptr(), DTYPE_CODE[y.dtype], (middle, k, n),
        coeffs.data_ptr(), order.data_ptr(), key, allows_tf32(y, CUDA.matmul), place(y),
    )  # fmt: skip


def _triton(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    from ..triton.unmix_linear import unmix_linear

    coeffs, order, _ = key_args(y, coeffs, order)
    unmix_linear(plain(y), coeffs, order, weight.resolve_neg(), plain(bias), out)


def _fresh(kernel: Callable[..., None], y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor,
           bias: Tensor | None) -> Tensor:  # fmt: skip
    out = _fake(y, coeffs, order, weight, bias)
    kernel(y, coeffs, order, weight, bias, out)
    return out


def _reference(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return reference.unmix_linear(y, MixKey._wrap(coeffs, order), weight, bias)


def _fake(y: Tensor, coeffs: Tensor, order: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return y.new_empty(*y.shape[:-1], weight.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    y, coeffs, order, weight, bias = inputs
    ctx.save_for_backward(y, coeffs, order, weight)
    ctx.has_bias = bias is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    # With m = mix(grad), the adjoint of unmix:  dy = m W,  dW = m^T y,  db = sum(grad).
    y, coeffs, order, weight = ctx.saved_tensors
    mixed = torch.ops.facemix_ops.group_mix(grad, coeffs, order)
    grad_y = mixed @ weight if ctx.needs_input_grad[0] else None
    grad_weight = mixed.flatten(0, -2).T @ y.flatten(0, -2) if ctx.needs_input_grad[3] else None
    grad_bias = grad.flatten(0, -2).sum(0) if ctx.has_bias and ctx.needs_input_grad[4] else None
    return grad_y, None, None, grad_weight, grad_bias


register(
    "unmix_linear(Tensor y, Tensor coeffs, Tensor order, Tensor weight, Tensor? bias) -> Tensor",
    native=_native,
    triton=_triton,
    fresh=_fresh,
    reference=_reference,
    fake=_fake,
)
register_autograd("unmix_linear", _backward, _setup)


def unmix_linear(
    y: Tensor, key: MixKey, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """``F.linear(group_unmix(y, key), weight, bias)``: the cloud's reply to the edge's last layer (paper, section 3.2).

    Args:
        y: [B, ..., in], float32, float64, bfloat16 or float16; B = key.batch. Sums are taken in float32 or better;
            on CUDA float32 is multiplied as TF32 where ``torch.backends.cuda.matmul`` allows it.
        key: the key that the rows were mixed with.
        weight: [out, in], dtype of ``y``. bias: [out] or None.
        out: a contiguous buffer to reuse (eager mode, without gradients).

    Returns:
        [B, ..., out], contiguous, rows in the order of the images. Under autocast in its dtype. Sums are taken in
        float32 or better; Triton rounds the products of 16-bit numbers once more before it un-mixes them.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
        NotImplementedError: in forward-mode automatic differentiation and in gradients of torch.func, which PyTorch's
            custom ops do not have.
    """
    op = "unmix_linear"
    check_tensor(op, "y", y)
    check_key(op, key, y, "y")
    check_tensor(op, "weight", weight, ndim=2)
    y, weight, bias = autocast(y, weight, bias)  # type: ignore[assignment]
    check_tensor(op, "weight", weight, like=y)
    if y.dim() < 2 or y.shape[-1] != weight.shape[1]:
        bad_value(
            op, "y", f"have shape [B, ..., {weight.shape[1]}] for weight {list(weight.shape)}", f"{list(y.shape)}"
        )
    if bias is not None:
        check_tensor(op, "bias", bias, ndim=1, like=y)
        if bias.shape[0] != weight.shape[0]:
            bad_value(op, "bias", f"have shape [{weight.shape[0]}]", f"{list(bias.shape)}")
    check_reverse_mode(op, y, weight, bias)
    if out is None:
        return torch.ops.facemix_ops.unmix_linear(y, key.coeffs, key.order, weight, bias)
    check_out(op, out, (*y.shape[:-1], weight.shape[0]), y.dtype, torch.contiguous_format, y, weight, bias)
    kernel = kernel_for(op, y)
    if kernel is None:
        return out.copy_(torch.ops.facemix_ops.unmix_linear(y, key.coeffs, key.order, weight, bias))
    kernel(y, key.coeffs, key.order, weight, bias, out)
    return written(out)
