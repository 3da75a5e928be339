"""act_mix: per-channel affine, residual, activation and max-pool, then mix and shuffle; and its derivatives.

With z = scale * x + shift + residual, a = act(z), p = maxpool(a), y = mix(p), every derivative goes through one linear
map, the linearisation at the recorded codes (which element won each window, and on which side of the activation):

    act_mix_jvp  y = mix(f * z[winner])            f = neg where the activation's negative side was taken, else pos
    act_mix_vjp  z[winner] += f * unmix(y)         its adjoint: un-mix, un-pool and mask in one pass

The two are each other's backward, so that gradients of any order need nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..backend import select
from ..checks import bad_type, bad_value, check_key, check_out, check_tensor
from ..keys import MixKey
from ..native import C
from ..reference.act_mix import affine, max_pool
from ..spec import NONE, RELU, Activation, needs_codes, parse_activation, parse_pool, pooled_size
from .library import (
    DTYPE_CODE,
    address,
    compute_dtype,
    empty_image,
    is_channels_last,
    key_args,
    plain,
    register,
    register_autograd,
    wants_grad,
)

IDENTITY_POOL = (1, 1, 1, 1, 0, 0)


def rows_of(x: Tensor) -> Tensor:
    """``x`` dense, in its own layout: NHWC where results are, else NCHW."""
    return x.contiguous(memory_format=torch.channels_last if is_channels_last(x) else torch.contiguous_format)


def slope_of(kind: int, slope: float, weight: Tensor | None) -> float:
    """The activation's negative slope as a number."""
    if kind == NONE:
        return 1.0
    if kind == RELU:
        return 0.0
    return slope if weight is None else float(weight)


# --- act_mix_jvp and act_mix_vjp -----------------------------------------------------------------------------------


def _linear(kernel: Any, z: Tensor, y: Tensor, codes: Tensor, key: tuple[Tensor, Tensor], pos: float, neg: float,
            pool: list[int]) -> None:  # fmt: skip
    coeffs, order, shape = key_args(*key)
    kernel(
        z.data_ptr(), y.data_ptr(), codes.data_ptr(), DTYPE_CODE[z.dtype], tuple(z.shape[1:]), tuple(y.shape[2:]),
        pos, neg, tuple(pool or IDENTITY_POOL), coeffs.data_ptr(), order.data_ptr(), shape,
        is_channels_last(codes), torch.get_num_threads(),
    )  # fmt: skip


def _as_codes(t: Tensor, codes: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last if is_channels_last(codes) else torch.contiguous_format)


def _jvp_native(z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float, neg: float,
                pool: list[int]) -> Tensor:  # fmt: skip
    y = _jvp_fake(z, codes, coeffs, order, pos, neg, pool)
    _linear(C.act_mix_jvp, _as_codes(z, codes), y, codes, (coeffs, order), pos, neg, pool)
    return y


def _jvp_reference(z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float, neg: float,
                   pool: list[int]) -> Tensor:  # fmt: skip
    y = reference.act_mix_jvp(z, codes, MixKey._wrap(coeffs, order), pos, neg, pool)
    return _jvp_fake(z, codes, coeffs, order, pos, neg, pool).copy_(y)


def _jvp_fake(z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float, neg: float,
              pool: list[int]) -> Tensor:  # fmt: skip
    return torch.empty_like(codes, dtype=z.dtype)


def _jvp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, codes, coeffs, order, *ctx.rest = inputs
    ctx.save_for_backward(codes, coeffs, order)
    ctx.size = z.shape[2:]


def _jvp_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.facemix_ops.act_mix_vjp(grad, *ctx.saved_tensors, *ctx.size, *ctx.rest), *[None] * 6


def _vjp_native(y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int, width: int, pos: float,
                neg: float, pool: list[int]) -> Tensor:  # fmt: skip
    z = _vjp_fake(y, codes, coeffs, order, height, width, pos, neg, pool)
    _linear(C.act_mix_vjp, z, _as_codes(y, codes), codes, (coeffs, order), pos, neg, pool)
    return z


def _vjp_reference(y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int, width: int, pos: float,
                   neg: float, pool: list[int]) -> Tensor:  # fmt: skip
    z = reference.act_mix_vjp(y, codes, MixKey._wrap(coeffs, order), height, width, pos, neg, pool)
    return _vjp_fake(y, codes, coeffs, order, height, width, pos, neg, pool).copy_(z)


def _vjp_fake(y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int, width: int, pos: float,
              neg: float, pool: list[int]) -> Tensor:  # fmt: skip
    return empty_image(codes, (*codes.shape[:2], height, width), y.dtype)


def _vjp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, codes, coeffs, order, _, _, *ctx.rest = inputs
    ctx.save_for_backward(codes, coeffs, order)


def _vjp_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.facemix_ops.act_mix_jvp(grad, *ctx.saved_tensors, *ctx.rest), *[None] * 8


register(
    "act_mix_jvp(Tensor z, Tensor codes, Tensor coeffs, Tensor order, float pos, float neg, int[] pool) -> Tensor",
    native=_jvp_native,
    reference=_jvp_reference,
    fake=_jvp_fake,
)
register_autograd("act_mix_jvp", _jvp_backward, _jvp_setup)
register(
    "act_mix_vjp(Tensor y, Tensor codes, Tensor coeffs, Tensor order, SymInt height, SymInt width, float pos, "
    "float neg, int[] pool) -> Tensor",
    native=_vjp_native,
    reference=_vjp_reference,
    fake=_vjp_fake,
)
register_autograd("act_mix_vjp", _vjp_backward, _vjp_setup)


def grad_preactivation(
    grad: Tensor, z: Tensor | torch.Size, codes: Tensor, key: tuple[Tensor, Tensor], kind: int, slope: float,
    weight: Tensor | None, pool: list[int], dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The gradient with respect to z [B, C, H, W] (or of that size), in ``dtype``, of y = mix(maxpool(act(z)))."""
    height, width = z[-2:] if isinstance(z, torch.Size) else z.shape[-2:]
    grad = grad.to(dtype)
    if not needs_codes(kind, pool):
        return torch.ops.facemix_ops.group_unmix(grad, *key)
    if weight is not None and weight.requires_grad:
        # Linear in the trained slope: two halves, so that second derivatives see it.
        vjp = torch.ops.facemix_ops.act_mix_vjp
        positive = vjp(grad, codes, *key, height, width, 1.0, 0.0, pool)
        return positive + weight.to(dtype) * vjp(grad, codes, *key, height, width, 0.0, 1.0, pool)
    neg = slope_of(kind, slope, weight)
    return torch.ops.facemix_ops.act_mix_vjp(grad, codes, *key, height, width, 1.0, neg, pool)


def grad_slope(grad: Tensor, z: Tensor, codes: Tensor, key: tuple[Tensor, Tensor], weight: Tensor,
               pool: list[int]) -> Tensor:  # fmt: skip
    """The gradient with respect to a trained slope: <grad, mix of the z that it was applied to>."""
    taken = torch.ops.facemix_ops.act_mix_jvp(z, codes, *key, 0.0, 1.0, pool)
    return (grad.to(taken.dtype) * taken).sum().to(weight.dtype).reshape(weight.shape)


# --- act_mix -------------------------------------------------------------------------------------------------------


def _run(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
         residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int], y: Tensor,
         codes: Tensor | None) -> None:  # fmt: skip
    coeffs, order, key = key_args(coeffs, order)
    last = is_channels_last(x)
    x = rows_of(x.resolve_neg())
    if residual is not None:
        residual = residual.resolve_neg().contiguous(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
    scale, shift = plain(scale), plain(shift)
    C.act_mix(
        x.data_ptr(), DTYPE_CODE[x.dtype], tuple(x.shape[1:]), address(scale), address(shift), address(residual),
        kind, slope_of(kind, slope, weight), tuple(pool or IDENTITY_POOL), tuple(y.shape[2:]),
        coeffs.data_ptr(), order.data_ptr(), key, y.data_ptr(), DTYPE_CODE[y.dtype], last, address(codes),
        torch.get_num_threads(),
    )  # fmt: skip


def _native(x: Tensor, coeffs: Tensor, order: Tensor, scale: Tensor | None, shift: Tensor | None,
            residual: Tensor | None, kind: int, slope: float, weight: Tensor | None, pool: list[int],
            out_dtype: torch.dtype | None, with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    y, codes = _fake(x, coeffs, order, scale, shift, residual, kind, slope, weight, pool, out_dtype, with_codes)
    _run(x, coeffs, order, scale, shift, residual, kind, slope, weight, pool, y, codes if with_codes else None)
    return y, codes


def mix_reference(z: Tensor, coeffs: Tensor, order: Tensor, activation: Activation, pool: list[int], y: Tensor,
                  codes: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fills ``y`` and, unless it is empty, ``codes`` from the pre-activation by the reference."""
    pooled = max_pool(activation(z), pool)
    y.copy_(reference.group_mix(pooled, MixKey._wrap(coeffs, order)))
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
    x, coeffs, order, scale, shift, residual, ctx.kind, ctx.slope, weight, ctx.pool, _, _ = inputs
    ctx.save_for_backward(x, coeffs, order, scale, shift, residual, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 12
    x, coeffs, order, scale, shift, residual, weight, codes = ctx.saved_tensors
    need, key = ctx.needs_input_grad, (coeffs, order)
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
    reference=_reference,
    fake=_fake,
)
register_autograd("act_mix", _backward, _setup)


def check_wire_dtype(op: str, out_dtype: torch.dtype | None, x: Tensor) -> None:
    """float64 stays float64; the others may be written in each other."""
    if out_dtype is None or out_dtype == x.dtype:
        return
    allowed = (torch.float32, torch.bfloat16, torch.float16) if x.dtype != torch.float64 else (torch.float64,)
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
        pool: max-pool after the activation: None, a kernel, or (kernel, stride, padding), each an int or a pair.
        out_dtype: what to write, e.g. bfloat16 for a smaller upload; default the dtype of ``x``.
        out: a buffer to reuse, like a fresh result (eager mode, without gradients).

    Returns:
        [B, C, H', W'] in the layout of ``x``, differentiable any number of times.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
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
    pool = parse_pool(op, pool)
    size = pooled_size(op, x.shape[2:], pool)
    check_wire_dtype(op, out_dtype, x)
    if out is None:
        grads = wants_grad(x, scale, shift, residual, act.weight)
        return torch.ops.facemix_ops.act_mix(
            x, key.coeffs, key.order, scale, shift, residual, *act, pool, out_dtype,
            grads and needs_codes(act.kind, pool),
        )[0]  # fmt: skip
    like = empty_image(x, (*x.shape[:2], *size), out_dtype or x.dtype)
    check_out(op, out, like.to("meta"), x, scale, shift, residual, act.weight)
    if select(op, x.device.type).backend != "native":
        return out.copy_(
            torch.ops.facemix_ops.act_mix(
                x, key.coeffs, key.order, scale, shift, residual, *act, pool, out_dtype, False
            )[0]
        )
    _run(x, key.coeffs, key.order, scale, shift, residual, *act, pool, out, None)
    return out
