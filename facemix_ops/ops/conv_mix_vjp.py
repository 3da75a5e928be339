"""conv_mix_vjp: the gradients of conv_mix's weight and bias at the recorded codes, in one pass over that of its result.

With u = act_mix_vjp(y):   weight[oc, c, kh, kw] = sum u[b, oc, h, w] * x[b, c, window of (h, w)],   bias[oc] = sum u

Only CPUs have a kernel for it: it saves them to write u and to read it again. It takes part where ``x`` itself needs no
gradient, as photographs do; everywhere else it is act_mix_vjp, and then PyTorch's convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..native import C
from ..spec import convolved_size, pooled_size
from .act_mix_linear import IDENTITY_POOL, check_pooled
from .library import (
    DTYPE_CODE,
    address,
    is_channels_last,
    kernel_for,
    key_args,
    layout_of,
    place,
    register,
    register_autograd,
)


def _native(y: Tensor, x: Tensor, codes: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
            padding: list[int], dilation: list[int], neg: float, pool: list[int], weight: Tensor,
            bias: Tensor) -> None:  # fmt: skip
    coeffs, order, key = key_args(y, coeffs, order)
    layout = layout_of(x)
    y = y.contiguous(memory_format=layout)
    codes = None if codes is None else codes.contiguous(memory_format=layout)
    oc, _, *kernel = weight.shape
    size = convolved_size(x, kernel, stride, padding, dilation)
    check_pooled("conv_mix_vjp", (x.shape[0], oc, *pooled_size("conv_mix_vjp", size, pool)), y=y, codes=codes)
    C.conv_mix_vjp(
        y.data_ptr(), x.data_ptr(), DTYPE_CODE[x.dtype], tuple(x.shape[1:]), x.stride(), (oc, *kernel), tuple(stride),
        tuple(padding), tuple(dilation), neg, tuple(pool or IDENTITY_POOL),
        tuple(size), tuple(y.shape[2:]), coeffs.data_ptr(),
        order.data_ptr(), key, is_channels_last(x), address(codes), weight.data_ptr(), bias.data_ptr(), place(x),
    )  # fmt: skip


def _fresh(kernel: Callable[..., None], *args: Any) -> tuple[Tensor, Tensor]:
    weight, bias = _fake(*args)
    *inputs, _, stride, padding, dilation, neg, pool = args
    kernel(*inputs, stride, padding, dilation, neg, pool, weight, bias)
    return weight, bias


def _reference(y: Tensor, x: Tensor, codes: Tensor | None, coeffs: Tensor, order: Tensor, kernel: list[int],
               stride: list[int], padding: list[int], dilation: list[int], neg: float,
               pool: list[int]) -> tuple[Tensor, Tensor]:  # fmt: skip
    weight, _ = _fake(y, x, codes, coeffs, order, kernel, stride, padding, dilation, neg, pool)
    u = _unmixed(y, x, codes, (coeffs, order), kernel, [stride, padding, dilation], neg, pool)
    _, weight, bias = torch.ops.aten.convolution_backward(
        u, x, weight, [y.shape[1]], stride, padding, dilation, False, [0, 0], 1, [False, True, True]
    )
    return weight.contiguous(), bias


def _fake(y: Tensor, x: Tensor, codes: Tensor | None, coeffs: Tensor, order: Tensor, kernel: list[int],
          *_: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
    return x.new_empty((y.shape[1], x.shape[1], *kernel)), x.new_empty(y.shape[1])


def _unmixed(y: Tensor, x: Tensor, codes: Tensor | None, key: tuple[Tensor, Tensor], kernel: list[int],
             conv: list[list[int]], neg: float, pool: list[int]) -> Tensor:  # fmt: skip
    # u of the module's docstring.
    if codes is None:
        return torch.ops.facemix_ops.group_unmix(y, *key)
    return torch.ops.facemix_ops.act_mix_vjp(y, codes, *key, *convolved_size(x, kernel, *conv), 1.0, neg, pool)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    y, x, codes, coeffs, order, ctx.kernel, *ctx.conv, ctx.neg, ctx.pool = inputs
    ctx.save_for_backward(y, x, codes, coeffs, order)


def _backward(ctx: Any, weight: Tensor, bias: Tensor) -> tuple[Any, ...]:
    # Linear in y and in x: what is left of each when weight and bias are given.
    y, x, codes, *key = ctx.saved_tensors
    grad_y = grad_x = None
    if ctx.needs_input_grad[0]:
        z = F.conv2d(x, weight, bias, *ctx.conv)
        grad_y = (
            torch.ops.facemix_ops.group_mix(z, *key)
            if codes is None
            else torch.ops.facemix_ops.act_mix_jvp(z, codes, *key, 1.0, ctx.neg, ctx.pool)
        )
    if ctx.needs_input_grad[1]:
        u = _unmixed(y, x, codes, tuple(key), ctx.kernel, ctx.conv, ctx.neg, ctx.pool)
        grad_x = torch.ops.aten.convolution_backward(
            u, x, weight, None, *ctx.conv, False, [0, 0], 1, [True, False, False]
        )[0]
    return grad_y, grad_x, *[None] * 9


register(
    "conv_mix_vjp(Tensor y, Tensor x, Tensor? codes, Tensor coeffs, Tensor order, int[] kernel, int[] stride, "
    "int[] padding, int[] dilation, float neg, int[] pool) -> (Tensor, Tensor)",
    native=_native,
    fresh=_fresh,
    reference=_reference,
    fake=_fake,
)
register_autograd("conv_mix_vjp", _backward, _setup)


def serves(x: Tensor) -> bool:
    """Whether there is a kernel for tensors like ``x``, so that the op is faster than what it is made of."""
    return kernel_for("conv_mix_vjp", x) is not None
