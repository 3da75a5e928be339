"""conv_mix: conv2d, bias, activation, max-pool, mix and shuffle in one pass over the input.

With z = conv2d(x, weight) + bias:   y = mix(maxpool(act(z)));   dz = act_mix_vjp(dy), then the convolution's backward;
on CPUs the two in one, conv_mix_vjp, where x needs no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import as_pair, bad_value, check_out, check_reverse_mode, check_slope, check_tensor
from ..keys import MixKey, check_key
from ..native import C
from ..spec import Activation, convolved_size, needs_codes, parse_activation, parse_pool, pooled_size
from . import conv_mix_vjp
from .act_mix import check_wire_dtype, mix_reference, results
from .act_mix_linear import IDENTITY_POOL, grad_preactivation, grad_slope, slope_args
from .library import (
    CUDNN,
    DTYPE_CODE,
    address,
    allows_tf32,
    autocast,
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


def _native(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
            padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None, pool: list[int],
            y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    coeffs, order, key = key_args(x, coeffs, order)
    x, weight, bias = x.resolve_neg(), plain(weight), plain(bias)
    slope, slope_at = slope_args(slope, prelu)
    oc, _, kh, kw = weight.shape
    C.conv_mix(
        x.data_ptr(), DTYPE_CODE[x.dtype], tuple(x.shape[1:]), x.stride(), weight.data_ptr(), address(bias),
        (oc, kh, kw), tuple(stride), tuple(padding), tuple(dilation), kind, slope, address(slope_at),
        tuple(pool or IDENTITY_POOL), tuple(convolved_size(x, [kh, kw], stride, padding, dilation)),
        tuple(y.shape[2:]), coeffs.data_ptr(), order.data_ptr(), key, y.data_ptr(), DTYPE_CODE[y.dtype],
        is_channels_last(x), address(codes), allows_tf32(x, CUDNN.conv), place(x),
    )  # fmt: skip


def _triton(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
            padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None, pool: list[int],
            y: Tensor, codes: Tensor | None) -> None:  # fmt: skip
    from ..triton.conv_mix import conv_mix

    coeffs, order, _ = key_args(x, coeffs, order)
    conv_mix(
        x.resolve_neg(), weight.resolve_neg(), plain(bias), coeffs, order, stride, padding, dilation, kind,
        slope, plain(prelu), pool or list(IDENTITY_POOL),
        convolved_size(x, weight.shape[2:], stride, padding, dilation), is_channels_last(x), y, codes,
    )  # fmt: skip


def _fresh(kernel: Callable[..., None], *args: Any) -> tuple[Tensor, Tensor]:
    y, codes = _fake(*args)
    y = recycled(y)
    *inputs, _, with_codes = args
    kernel(*inputs, y, codes if with_codes else None)
    return y, codes


def _reference(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
               padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None,
               pool: list[int], out_dtype: torch.dtype | None, with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    y, codes = _fake(
        x, weight, bias, coeffs, order, stride, padding, dilation, kind, slope, prelu, pool, out_dtype, with_codes
    )
    z = F.conv2d(x, weight, bias, stride, padding, dilation)
    return mix_reference(z, coeffs, order, Activation(kind, slope, prelu), pool, y, codes)


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, coeffs: Tensor, order: Tensor, stride: list[int],
          padding: list[int], dilation: list[int], kind: int, slope: float, prelu: Tensor | None, pool: list[int],
          out_dtype: torch.dtype | None, with_codes: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    size = pooled_size("conv_mix", convolved_size(x, weight.shape[2:], stride, padding, dilation), pool)
    return results(x, weight.shape[0], *size, out_dtype, with_codes)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, coeffs, order, *ctx.conv, ctx.kind, ctx.slope, prelu, ctx.pool, _, ctx.with_codes = inputs
    ctx.save_for_backward(x, weight, bias, coeffs, order, prelu, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 14
    x, weight, bias, coeffs, order, prelu, codes = ctx.saved_tensors
    need, key = ctx.needs_input_grad, (coeffs, order)
    if needs_codes(ctx.kind, ctx.pool) and not ctx.with_codes:
        # Under vmap, and in a graph exported without gradients, autograd records what no tensor had asked for.
        rest = (*ctx.conv, ctx.kind, ctx.slope, prelu, ctx.pool, None, True)
        with torch.no_grad():
            codes = torch.ops.facemix_ops.conv_mix(x, weight, bias, *key, *rest)[1]
    if conv_mix_vjp.serves(x) and need[1] and not need[0] and prelu is None:
        taken = codes if needs_codes(ctx.kind, ctx.pool) else None
        grad_weight, grad_bias = torch.ops.facemix_ops.conv_mix_vjp(
            grad.to(x.dtype), x, taken, *key, weight.shape[2:], *ctx.conv, ctx.slope, ctx.pool
        )
        return None, grad_weight, grad_bias if need[2] else None, *[None] * 11
    size = torch.Size(convolved_size(x, weight.shape[2:], *ctx.conv))
    u = grad_preactivation(grad, size, codes, key, ctx.kind, ctx.slope, prelu, ctx.pool, x.dtype)
    grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        u, x, weight, None if bias is None else [weight.shape[0]], *ctx.conv, False, [0, 0], 1,
        [need[0], need[1], bias is not None and need[2]],
    )  # fmt: skip
    grad_prelu = None
    if need[10]:
        z = F.conv2d(x, weight, bias, *ctx.conv)
        grad_prelu = grad_slope(grad, z, codes, key, prelu, ctx.pool)
    return grad_x, grad_weight, grad_bias, *[None] * 7, grad_prelu, None, None, None


register(
    "conv_mix(Tensor x, Tensor weight, Tensor? bias, Tensor coeffs, Tensor order, int[] stride, int[] padding, "
    "int[] dilation, int kind, float slope, Tensor? prelu, int[] pool, ScalarType? out_dtype, bool with_codes) "
    "-> (Tensor, Tensor)",
    native=_native,
    triton=_triton,
    fresh=_fresh,
    reference=_reference,
    fake=_fake,
)
register_autograd("conv_mix", _backward, _setup)


def _pad_same(x: Tensor, weight: Tensor, dilation: list[int]) -> tuple[Tensor, list[int]]:
    # padding="same" pads unevenly for even spans, the odd one at the end; that one is put there by hand.
    total = [dilation[d] * (weight.shape[2 + d] - 1) for d in (0, 1)]
    if any(t % 2 for t in total):
        x = F.pad(x, (0, total[1] % 2, 0, total[0] % 2))
    return x, [t // 2 for t in total]


def conv_mix(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    key: MixKey,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    activation: Any = None,
    pool: Any = None,
    out_dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``group_mix(max_pool(act(F.conv2d(x, weight, bias, ...))), key)`` in one pass: the edge's first half.

    The activation and the pool come before the mix because a maximum of mixtures is not the mixture of the maxima
    (the paper's M_pre, section 3.2, and eq. 4).

    Args:
        x: [B, C, H, W], float32, float64, bfloat16 or float16, any strides; B = key.batch.
        weight: [OC, C, KH, KW], dtype of ``x``. bias: [OC] or None.
        key: a :class:`~facemix_ops.MixKey`.
        stride, dilation: an int or a pair. padding: an int, a pair, "valid" or (stride 1) "same"; with zeros.
        activation: None, "relu", "leaky_relu", ("leaky_relu", slope) or ("prelu", weight with one element).
        pool: max-pool after the activation: None, an int, or (kernel, stride, padding), each an int or a pair.
        out_dtype: what to write, e.g. bfloat16 for a smaller upload; default the dtype of ``x``. int8, without
            gradients: the nearest whole number, ties to even, from -127 to 127, NaN as 0. To scale the channels, divide
            ``weight`` and ``bias`` by a positive scale for each: all that follows passes it on to the result.
        out: a buffer to reuse, like a fresh result (eager mode, without gradients). Fresh memory is slow.

    Returns:
        [B, OC, H', W'], channels_last where ``x`` is, differentiable any number of times (floats). Sums are taken in
        float32 or better; bfloat16 is multiplied as it is with capability avx512_bf16, and on CUDA float32 as TF32
        where ``torch.backends.cudnn.conv`` allows it. On GPUs tensor cores mix as well: there the result of the
        convolution is rounded to the dtype they multiply, as PyTorch's convolution rounds its own; the key is not.
        Under autocast ``x``, ``weight`` and ``bias`` are taken in its dtype.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
        NotImplementedError: in forward-mode automatic differentiation and in gradients of torch.func, which PyTorch's
            custom ops do not have.
    """
    op = "conv_mix"
    check_tensor(op, "x", x, ndim=4)
    check_key(op, key, x)
    if 0 in x.shape[1:]:
        bad_value(op, "x", "have no empty dimension but the batch", f"shape {list(x.shape)}")
    check_tensor(op, "weight", weight, ndim=4)
    x, weight, bias = autocast(x, weight, bias)  # type: ignore[assignment]
    check_tensor(op, "weight", weight, like=x)
    if weight.shape[1] != x.shape[1]:
        bad_value(op, "weight", f"have shape [OC, {x.shape[1]}, KH, KW] for x {list(x.shape)}", f"{list(weight.shape)}")
    if bias is not None:
        check_tensor(op, "bias", bias, ndim=1, like=x)
        if bias.shape[0] != weight.shape[0]:
            bad_value(op, "bias", f"have shape [{weight.shape[0]}]", f"{list(bias.shape)}")
    stride, dilation = as_pair(op, "stride", stride, 1), as_pair(op, "dilation", dilation, 1)
    layout = x  # a slice or a padded copy may look different; results follow what the caller gave
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            bad_value(op, "padding", 'be an int, a pair, "same" or "valid"', padding)
        if padding == "same" and stride != [1, 1]:
            bad_value(op, "padding", 'not be "same" for strided convolutions', f"stride {stride}")
        x, padding = _pad_same(x, weight, dilation) if padding == "same" else (x, [0, 0])
    else:
        padding = as_pair(op, "padding", padding, 0)
    size = convolved_size(x, weight.shape[2:], stride, padding, dilation)
    if min(size) <= 0 or 0 in weight.shape[2:]:
        padded = [x.shape[2] + 2 * padding[0], x.shape[3] + 2 * padding[1]]
        span = [dilation[d] * (weight.shape[2 + d] - 1) + 1 for d in (0, 1)]
        bad_value(op, "weight", f"span at least 1 and at most the padded input {padded}", f"{span}")
    act = parse_activation(op, activation)
    check_slope(op, act.weight, x)
    check_reverse_mode(op, x, weight, bias, act.weight)
    pool = parse_pool(op, pool)
    size = list(pooled_size(op, size, pool))
    check_wire_dtype(op, out_dtype, x, torch.int8)
    if out_dtype == torch.int8 and wants_grad(x, weight, bias, act.weight):
        raise ValueError(f"{op}: out_dtype=torch.int8 does not support automatic differentiation; use torch.no_grad()")
    if is_channels_last(layout) and not is_channels_last(x):
        x = x.contiguous(memory_format=torch.channels_last)
    args = (x, weight, bias, key.coeffs, key.order, stride, padding, dilation, *act, pool)
    if out is None:
        with_codes = wants_grad(x, weight, bias, act.weight) and needs_codes(act.kind, pool)
        return torch.ops.facemix_ops.conv_mix(*args, out_dtype, with_codes)[0]
    shape = (x.shape[0], weight.shape[0], *size)
    check_out(op, out, shape, out_dtype or x.dtype, layout_of(x), x, weight, bias, act.weight)
    kernel = kernel_for(op, x)
    if kernel is None:
        return out.copy_(torch.ops.facemix_ops.conv_mix(*args, out_dtype, False)[0])
    kernel(*args, out, None)
    return written(out)
