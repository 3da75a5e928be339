"""Errors at the door: op, argument, rule, got."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .rules import bad_type, bad_value

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


def check_out(op: str, out: Tensor, shape: Sequence[int], dtype: torch.dtype, layout: torch.memory_format,
              *inputs: Tensor | None) -> None:  # fmt: skip
    """A buffer that a kernel can write straight into: of this shape and dtype, dense in this layout, on the device of
    the inputs, sharing no memory with any; and no gradients asked for."""
    if not isinstance(out, Tensor):
        bad_type(op, "out", "be a Tensor", f"{type(out).__name__}")
    if out.shape != shape:
        bad_value(op, "out", f"have shape {list(shape)}", f"{list(out.shape)}")
    if out.dtype != dtype:
        bad_type(op, "out", f"have dtype {dtype}", str(out.dtype))
    if out.is_neg():
        bad_value(op, "out", "hold its values as they are", "a negated view")
    if not out.is_contiguous(memory_format=layout):
        strides = torch.empty(shape, device="meta", memory_format=layout).stride()
        bad_value(op, "out", f"have the strides {strides} of a fresh result", f"{out.stride()}")
    begin, end = _extent(out)
    device = out.device
    grads = torch.is_grad_enabled()
    for tensor in inputs:
        if tensor is None:
            continue
        if device != tensor.device:
            bad_value(op, "out", f"be on {tensor.device}", str(device))
        first, last = _extent(tensor)
        if begin < last and first < end:
            bad_value(op, "out", "not share memory with an input", "an overlapping buffer")
        if grads and (tensor.requires_grad or out.requires_grad):
            raise ValueError(f"{op}: out= does not support automatic differentiation; use torch.no_grad()")


def _extent(x: Tensor) -> tuple[int, int]:
    """The addresses of its first byte and of the one after its last: other storages may hold the same memory."""
    if not x.numel():
        return 0, 0
    elements = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + elements * x.element_size()


def check_slope(op: str, slope: Tensor | None, x: Tensor) -> None:
    """The weight of a PReLU is on the device of the input."""
    if slope is not None and slope.device != x.device:
        bad_value(op, "activation", f"have its weight on {x.device}", str(slope.device))


def check_reverse_mode(op: str, *inputs: Tensor | None) -> None:
    """No input has a tangent, which PyTorch's custom ops would drop in silence, or is torch.func.grad's, of which they
    say what nobody understands."""
    given = [x for x in inputs if x is not None]
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in given):
        raise NotImplementedError(f"{op}: forward-mode automatic differentiation is not supported; use reverse mode")
    if not torch.compiler.is_compiling() and any(map(torch._C._functorch.is_gradtrackingtensor, given)):
        raise NotImplementedError(f"{op}: gradients of torch.func are not supported; use torch.autograd.grad")


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
