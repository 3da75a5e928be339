"""The linearisation of act_mix at the recorded codes, and its adjoint: the derivatives of act_mix and conv_mix.

A code says, for one pooled value, which element won its window and which side of the activation it was on. With
f = neg (or, where it is given, the number in `weight`) where that was the negative side, else pos:

    act_mix_jvp  y = mix(f * z[winner])
    act_mix_vjp  z[winner] += f * unmix(y)         its adjoint: un-mix, un-pool and mask in one pass

The two are each other's backward, so that gradients of any order need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..keys import MixKey
from ..native import C
from ..rules import bad_value
from ..spec import needs_codes, pooled_size
from .library import (
    DTYPE_CODE,
    address,
    empty_image,
    is_channels_last,
    key_args,
    layout_of,
    place,
    plain,
    recycled,
    register,
    register_autograd,
)

IDENTITY_POOL = (1, 1, 1, 1, 0, 0)


def slope_args(slope: float, weight: Tensor | None) -> tuple[float, Tensor | None]:
    """A slope as the kernels take it: the number, or, where it is a weight on a device, that in float32, unread.

    A float64 weight is read back: it would not be the same in float32.
    """
    if weight is None:
        return slope, None
    if weight.is_cpu or weight.dtype == torch.float64:
        return float(weight), None
    return slope, plain(weight.float())


def _native(op: str, z: Tensor, y: Tensor, codes: Tensor, key: tuple[Tensor, Tensor], pos: float, neg: float,
            pool: list[int], weight: Tensor | None) -> None:  # fmt: skip
    check_pooled(op, (*z.shape[:2], *pooled_size(op, z.shape[2:], pool)), y=y, codes=codes)
    coeffs, order, shape = key_args(z, *key)
    neg, neg_at = slope_args(neg, weight)
    getattr(C, op)(
        z.data_ptr(), y.data_ptr(), codes.data_ptr(), DTYPE_CODE[z.dtype], tuple(z.shape[1:]), tuple(y.shape[2:]),
        pos, neg, address(neg_at), tuple(pool or IDENTITY_POOL), coeffs.data_ptr(), order.data_ptr(), shape,
        is_channels_last(codes), place(z),
    )  # fmt: skip


def _triton(op: str, z: Tensor, y: Tensor, codes: Tensor, key: tuple[Tensor, Tensor], pos: float, neg: float,
            pool: list[int], weight: Tensor | None) -> None:  # fmt: skip
    from ..triton import act_mix_linear

    check_pooled(op, (*z.shape[:2], *pooled_size(op, z.shape[2:], pool)), y=y, codes=codes)
    coeffs, order, _ = key_args(z, *key)
    getattr(act_mix_linear, op)(
        z, y, codes, coeffs, order, pos, neg, plain(weight), pool or list(IDENTITY_POOL), is_channels_last(codes)
    )


def check_pooled(op: str, shape: tuple[int, ...], **tensors: Tensor | None) -> None:
    """What belongs to the pooled values has their shape. Kernels believe it, and what codes say."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.shape != shape:
            bad_value(op, name, f"have shape {list(shape)}", f"{list(tensor.shape)}")


def _as_codes(t: Tensor, codes: Tensor) -> Tensor:
    return t.contiguous(memory_format=layout_of(codes))


def _jvp_fresh(kernel: Callable[..., None], z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float,
               neg: float, pool: list[int], weight: Tensor | None = None) -> Tensor:  # fmt: skip
    y = recycled(_jvp_fake(z, codes, coeffs, order, pos, neg, pool))
    kernel("act_mix_jvp", _as_codes(z, codes), y, codes, (coeffs, order), pos, neg, pool, weight)
    return y


def _jvp_reference(z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float, neg: float,
                   pool: list[int], weight: Tensor | None = None) -> Tensor:  # fmt: skip
    neg = neg if weight is None else float(weight)
    y = reference.act_mix_jvp(z, codes, MixKey._wrap(coeffs, order), pos, neg, pool)
    return _jvp_fake(z, codes, coeffs, order, pos, neg, pool).copy_(y)


def _jvp_fake(z: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, pos: float, neg: float,
              pool: list[int], weight: Tensor | None = None) -> Tensor:  # fmt: skip
    return torch.empty_like(codes, dtype=z.dtype)


def _jvp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    z, codes, coeffs, order, *ctx.rest, weight = inputs
    ctx.save_for_backward(codes, coeffs, order, weight)
    ctx.size = z.shape[2:]


def _jvp_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *saved, weight = ctx.saved_tensors
    return torch.ops.facemix_ops.act_mix_vjp(grad, *saved, *ctx.size, *ctx.rest, weight), *[None] * 7


def _vjp_fresh(kernel: Callable[..., None], y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int,
               width: int, pos: float, neg: float, pool: list[int],
               weight: Tensor | None = None) -> Tensor:  # fmt: skip
    z = recycled(_vjp_fake(y, codes, coeffs, order, height, width, pos, neg, pool))
    kernel("act_mix_vjp", z, _as_codes(y, codes), codes, (coeffs, order), pos, neg, pool, weight)
    return z


def _vjp_reference(y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int, width: int, pos: float,
                   neg: float, pool: list[int], weight: Tensor | None = None) -> Tensor:  # fmt: skip
    neg = neg if weight is None else float(weight)
    z = reference.act_mix_vjp(y, codes, MixKey._wrap(coeffs, order), height, width, pos, neg, pool)
    return _vjp_fake(y, codes, coeffs, order, height, width, pos, neg, pool).copy_(z)


def _vjp_fake(y: Tensor, codes: Tensor, coeffs: Tensor, order: Tensor, height: int, width: int, pos: float,
              neg: float, pool: list[int], weight: Tensor | None = None) -> Tensor:  # fmt: skip
    return empty_image(codes, (*codes.shape[:2], height, width), y.dtype)


def _vjp_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, codes, coeffs, order, _, _, *ctx.rest, weight = inputs
    ctx.save_for_backward(codes, coeffs, order, weight)


def _vjp_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *saved, weight = ctx.saved_tensors
    return torch.ops.facemix_ops.act_mix_jvp(grad, *saved, *ctx.rest, weight), *[None] * 9


register(
    "act_mix_jvp(Tensor z, Tensor codes, Tensor coeffs, Tensor order, float pos, float neg, int[] pool, "
    "Tensor? weight=None) -> Tensor",
    native=_native,
    triton=_triton,
    fresh=_jvp_fresh,
    reference=_jvp_reference,
    fake=_jvp_fake,
)
register_autograd("act_mix_jvp", _jvp_backward, _jvp_setup)
register(
    "act_mix_vjp(Tensor y, Tensor codes, Tensor coeffs, Tensor order, SymInt height, SymInt width, float pos, "
    "float neg, int[] pool, Tensor? weight=None) -> Tensor",
    native=_native,
    triton=_triton,
    fresh=_vjp_fresh,
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
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        # Linear in the trained slope: two halves, so that second derivatives see it.
        vjp = torch.ops.facemix_ops.act_mix_vjp
        positive = vjp(grad, codes, *key, height, width, 1.0, 0.0, pool)
        return positive + weight.to(dtype) * vjp(grad, codes, *key, height, width, 0.0, 1.0, pool)
    return torch.ops.facemix_ops.act_mix_vjp(grad, codes, *key, height, width, 1.0, slope, pool, weight)


def grad_slope(grad: Tensor, z: Tensor, codes: Tensor, key: tuple[Tensor, Tensor], weight: Tensor,
               pool: list[int]) -> Tensor:  # fmt: skip
    """The gradient with respect to a trained slope: <grad, mix of the z that it was applied to>."""
    taken = torch.ops.facemix_ops.act_mix_jvp(z, codes, *key, 0.0, 1.0, pool)
    return (grad.to(taken.dtype) * taken).sum().to(weight.dtype).reshape(weight.shape)
