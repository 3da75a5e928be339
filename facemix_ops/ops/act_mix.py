"""act_mix: per-channel affine, residual, activation and max-pool, then mix and shuffle.

z = scale * x + shift + residual,   a = act(z),   p = maxpool(a),   y = mix(p);   dz = act_mix_vjp(dy)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..checks import bad_type, bad_value, check_out, check_reverse_mode, check_slope, check_tensor
from ..keys import MixKey, check_key
from ..native import C
from ..reference.act_mix import affine, max_pool
from ..spec import Activation, needs_codes, parse_activation, parse_pool, pooled_size
from .act_mix_linear import IDENTITY_POOL, grad_preactivation, grad_slope, slope_args
from .library import (
    DTYPE_CODE,
    address,
    compute_dtype,
    empty_image,
    is_channels_last,
    kernel_for,
    key_args,
    layout_of,
    place,
    plain,
    recycled,
    register,
    register_autograd,
    wants_grad,
    written,
)


def rows_of(x: Tensor) -> Tensor:
    """``x`` dense, in its own layout: NHWC where results are, else NCHW."""
    return x.contiguous(memory_format=layout_of(x))


def _dense(
    x: Tensor, residual: Tensor | None, scale: Tensor | None, shift: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    # What kernels read: x in its own layout, the residual in that of x.
    if residual is not None:
        residual = residual.resolve_neg().contiguous(memory_format=layout_of(x))
    return rows_of(x.resolve_neg()), residual, plain(scale), plain(shift)


def _native(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
            residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int], y: Tensor,
            codes: Tensor | None) -> None:  # fmt: skip
    coeffs, order, key = key_args(x, coeffs, order)
    last = is_channels_last(x)
    x, residual, scale, shift = _dense(x, residual, scale, shift)
    slope, slope_at = slope_args(slope, weight)
    C.act_mix(
        x.data_ptr(), DTYPE_CODE[x.dtype], tuple(x.shape[1:]), address(scale), address(shift), address(residual),
        kind, slope, address(slope_at), tuple(pool or IDENTITY_POOL), tuple(y.shape[2:]),
        coeffs.data_ptr(), order.data_ptr(), key, y.data_ptr(), DTYPE_CODE[y.dtype], last, address(codes),
        place(x),
    )  # fmt: skip


def _triton(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
            residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int], y: Tensor,
            codes: Tensor | None) -> None:  # fmt: skip
    from ..triton.act_mix import act_mix

    coeffs, order, _ = key_args(x, coeffs, order)
    last = is_channels_last(x)
    x, residual, scale, shift = _dense(x, residual, scale, shift)
    pool = pool or list(IDENTITY_POOL)
    act_mix(x, coeffs, order, scale, shift, residual, kind, slope, plain(weight), pool, last, y, codes)


def _fresh(kernel: Callable[..., None], *args: Any) -> tuple[Tensor, Tensor]:
    y, codes = _fake(*args)
    y = recycled(y)
    *inputs, _, with_codes = args
    kernel(*inputs, y, codes if with_codes else None)
    return y, codes


def mix_reference(z: Tensor, coeffs: Tensor, order: Tensor, activation: Activation, pool: list[int], y: Tensor,
                  codes: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fills ``y`` and, unless it is empty, ``codes`` from the pre-activation by the reference."""
    pooled = max_pool(activation(z), pool)
    mixed = reference.group_mix(pooled, MixKey._wrap(coeffs, order))
    y.copy_(reference.whole(mixed) if y.dtype == torch.int8 else mixed)
    if codes.numel():
        codes.copy_(reference.codes(z, activation, pool))
    return y, codes


def _reference(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
               residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int],
               out_dtype: torch.dtype | None, with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    y, codes = _fake(x, coeffs, order, scale, shift, residual, kind, slope, weight, pool, out_dtype, with_codes)
    z = affine(x, scale, shift, residual)
    return mix_reference(z, coeffs, order, Activation(kind, slope, weight), pool, y, codes)


def results(x: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None,
            with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Empty y and codes for an op on ``x``; codes without elements where they are not wanted."""
    shape = (x.shape[0], channels, height, width)
    y = empty_image(x, shape, dtype or x.dtype)
    codes = empty_image(x, shape, torch.uint8) if with_codes else x.new_empty(0, dtype=torch.uint8)
    return y, codes


def _fake(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
          residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int],
          out_dtype: torch.dtype | None, with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    return results(x, x.shape[1], *pooled_size("act_mix", x.shape[2:], pool), out_dtype, with_codes)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, coeffs, order, scale, shift, residual, ctx.kind, ctx.slope, weight, ctx.pool, _, ctx.with_codes = inputs
    ctx.save_for_backward(x, coeffs, order, scale, shift, residual, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 12
    x, coeffs, order, scale, shift, residual, weight, codes = ctx.saved_tensors
    need, key = ctx.needs_input_grad, (coeffs, order)
    if needs_codes(ctx.kind, ctx.pool) and not ctx.with_codes:  # as in conv_mix
        rest = (scale, shift, residual, ctx.kind, ctx.slope, weight, ctx.pool, None, True)
        with torch.no_grad():
            codes = torch.ops.facemix_ops.act_mix(x, *key, *rest)[1]
    # In the compute dtype: the products with x and scale are taken before anything is rounded.
    dtype = compute_dtype(x.dtype)
    u = grad_preactivation(grad, x, codes, key, ctx.kind, ctx.slope, weight, ctx.pool, dtype)
    grad_x = None
    if need[0]:
        grad_x = (u if scale is None else u * scale.reshape(-1, 1, 1)).to(x.dtype)
    grad_scale = (u * x).sum((0, 2, 3)) if need[3] else None
    grad_shift = u.sum((0, 2, 3)) if need[4] else None
    grad_residual = u.to(x.dtype) if need[5] else None
    grad_weight = None
    if need[8]:
        z = affine(x, scale, shift, residual).to(dtype)
        grad_weight = grad_slope(grad, z, codes, key, weight, ctx.pool)
    return (
        grad_x, None, None, grad_scale, grad_shift, grad_residual, None, None, grad_weight, None, None, None,
    )  # fmt: skip


register(
    "act_mix(Tensor x, Tensor coeffs, Tensor order, Tensor? scale, Tensor? shift, Tensor? residual, int kind, "
    "float slope, Tensor? weight, int[] pool, ScalarType? out_dtype, bool with_codes) -> (Tensor, Tensor)",
    native=_native,
    triton=_triton,
    fresh=_fresh,
    reference=_reference,
    fake=_fake,
)
register_autograd("act_mix", _backward, _setup)


def check_wire_dtype(op: str, out_dtype: torch.dtype | None, x: Tensor, *more: torch.dtype) -> None:
    """float64 stays float64; the others may be written in each other, and in ``more``."""
    if out_dtype is None or out_dtype == x.dtype:
        return
    allowed = (torch.float32, torch.bfloat16, torch.float16, *more) if x.dtype != torch.float64 else (torch.float64,)
    if out_dtype not in allowed:
        names = " or ".join(str(d) for d in allowed)
        bad_type(op, "out_dtype", f"be {names} for {x.dtype} input", str(out_dtype))


def act_mix(
    x: Tensor,
    key: MixKey,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activation: Any = None,
    pool: Any = None,
    out_dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``group_mix(max_pool(act(scale * x + shift + residual)), key)`` in one pass.

    For the end of an edge half that is deeper than one convolution, and for training with batch statistics.

    Args:
        x: [B, C, H, W], float32, float64, bfloat16 or float16, contiguous or channels_last; B = key.batch.
        key: a :class:`~facemix_ops.MixKey`.
        scale, shift: [C], float32 (float64 for float64 input). residual: like ``x``.
        activation: None, "relu", "leaky_relu", ("leaky_relu", slope) or ("prelu", weight with one element).
        pool: max-pool after the activation: None, an int, or (kernel, stride, padding), each an int or a pair.
        out_dtype: what to write, e.g. bfloat16 for a smaller upload; default the dtype of ``x``.
        out: a buffer to reuse, like a fresh result (eager mode, without gradients).

    Returns:
        [B, C, H', W'] in the layout of ``x``, differentiable any number of times.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
        NotImplementedError: in forward-mode automatic differentiation and in gradients of torch.func, which PyTorch's
            custom ops do not have.
    """
    op = "act_mix"
    check_tensor(op, "x", x, ndim=4)
    check_key(op, key, x)
    for name, tensor in (("scale", scale), ("shift", shift)):
        if tensor is None:
            continue
        check_tensor(op, name, tensor, ndim=1, like=x, dtype=compute_dtype(x.dtype))
        if tensor.shape[0] != x.shape[1]:
            bad_value(op, name, f"have shape [{x.shape[1]}]", f"{list(tensor.shape)}")
    if residual is not None:
        check_tensor(op, "residual", residual, ndim=4, like=x)
        if residual.shape != x.shape:
            bad_value(op, "residual", f"have shape {list(x.shape)}", f"{list(residual.shape)}")
    act = parse_activation(op, activation)
    check_slope(op, act.weight, x)
    check_reverse_mode(op, x, scale, shift, residual, act.weight)
    pool = parse_pool(op, pool)
    size = pooled_size(op, x.shape[2:], pool)
    check_wire_dtype(op, out_dtype, x)
    if out is None:
        grads = wants_grad(x, scale, shift, residual, act.weight)
        return torch.ops.facemix_ops.act_mix(
            x, key.coeffs, key.order, scale, shift, residual, *act, pool, out_dtype,
            grads and needs_codes(act.kind, pool),
        )[0]  # fmt: skip
    shape = (*x.shape[:2], *size)
    check_out(op, out, shape, out_dtype or x.dtype, layout_of(x), x, scale, shift, residual, act.weight)
    kernel = kernel_for(op, x)
    if kernel is None:
        return out.copy_(
            torch.ops.facemix_ops.act_mix(
                x, key.coeffs, key.order, scale, shift, residual, *act, pool, out_dtype, False
            )[0]
        )
    kernel(x, key.coeffs, key.order, scale, shift, residual, *act, pool, out, None)
    return written(out)
