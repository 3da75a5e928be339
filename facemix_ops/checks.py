"""Errors at the door: op, argument, rule, got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .rules import bad_type, bad_value

if TYPE_CHECKING:
    from .keys import MixKey

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def check_tensor(
    op: str,
    argument: str,
    value: Any,
    *,
    ndim: int | None = None,
    like: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """A tensor of a dtype we serve, with ``ndim`` dimensions, on the device of ``like``, of its dtype or ``dtype``."""
    if not isinstance(value, Tensor):
        bad_type(op, argument, "be a Tensor", f"{type(value).__name__}")
    if value.dtype not in DTYPES:
        bad_type(op, argument, "be float32, float64, bfloat16 or float16", str(value.dtype))
    if ndim is not None and value.dim() != ndim:
        bad_value(op, argument, f"have {ndim} dimensions", f"shape {list(value.shape)}")
    if like is None:
        return
    if value.dtype != (dtype or like.dtype):
        rule = f"have dtype {like.dtype}" if dtype is None else f"have dtype {dtype} for {like.dtype} input"
        bad_type(op, argument, rule, str(value.dtype))
    if value.device != like.device:
        bad_value(op, argument, f"be on {like.device}", str(value.device))


def check_key(op: str, key: MixKey, x: Tensor, argument: str = "x") -> None:
    """An open key for just this many rows, on the device of ``x``."""
    from .keys import MixKey

    if not isinstance(key, MixKey):
        bad_type(op, "key", "be a facemix_ops.MixKey", type(key).__name__)
    if key.closed:
        bad_value(op, "key", "be open", "a closed key: its memory was zeroed")
    coeffs = key.coeffs
    if x.dim() == 0 or coeffs.shape[0] * coeffs.shape[1] != x.shape[0]:
        rows = "a scalar" if x.dim() == 0 else f"{list(coeffs.shape)} for B = {x.shape[0]}"
        bad_value(op, "coeffs", "have shape [G, S, S] with G*S == B", rows)
    if coeffs.device != x.device:
        bad_value(op, "key", f"be on the device of {argument}, {x.device}", str(coeffs.device))


def check_out(op: str, out: Tensor, like: Tensor, *inputs: Tensor | None) -> None:
    """A buffer that a kernel can write straight into: shape, dtype and strides of ``like`` (a meta tensor), on the
    device of the first input, sharing no memory with any; and no gradients asked for."""
    check_tensor(op, "out", out)
    if out.shape != like.shape:
        bad_value(op, "out", f"have shape {list(like.shape)}", f"{list(out.shape)}")
    if out.dtype != like.dtype:
        bad_type(op, "out", f"have dtype {like.dtype}", str(out.dtype))
    if out.numel() and out.stride() != like.stride():
        bad_value(op, "out", f"have the strides {like.stride()} of a fresh result", f"{out.stride()}")
    for tensor in inputs:
        if tensor is None:
            continue
        if out.device != tensor.device:
            bad_value(op, "out", f"be on {tensor.device}", str(out.device))
        if out.numel() and out.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr():
            bad_value(op, "out", "not share memory with an input", "an overlapping buffer")
        if torch.is_grad_enabled() and (tensor.requires_grad or out.requires_grad):
            raise ValueError(f"{op}: out= does not support automatic differentiation; use torch.no_grad()")


def is_int(value: Any) -> bool:
    """An int, or a traced one; a bool is neither."""
    return isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)


def as_pair(op: str, argument: str, value: Any, low: int) -> list[int]:
    """An int, or a pair of them, as a pair; each at least ``low``."""
    pair = [value, value] if is_int(value) else value
    if not isinstance(pair, (tuple, list)) or not all(map(is_int, pair)):
        bad_type(op, argument, "be an int or a pair of ints", value)
    if len(pair) != 2:
        bad_value(op, argument, "be an int or a pair of ints", value)
    if any(v < low for v in pair):
        bad_value(op, argument, f"be at least {low}", value)
    return list(pair)
