"""What tests/gpu shares: tensors go to the device, and what comes back is held against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from cases import LAYOUTS, check_out
from tolerances import assert_near
from torch import Tensor

import facemix_ops
from facemix_ops import MixKey, reference
from facemix_ops.backend import WISH

OPS = ("conv_mix", "act_mix", "group_mix", "group_unmix", "unmix_linear")
Call = tuple[Callable[..., Tensor], list[Tensor]]
TF32 = "tf32"  # stands for float32 where PyTorch allows products of 10 bits


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether PyTorch allows TF32."""
    modules = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = allowed
    yield
    for module, value in zip(modules, before, strict=True):
        module.allow_tf32 = value


def dtype_of(precision: torch.dtype | str) -> torch.dtype:
    """The dtype of tensors, where ``precision`` may be TF32."""
    return torch.float32 if isinstance(precision, str) else precision


def rounded(x: Any) -> Any:
    """float32 with the 10 bits of TF32; Triton leaves the rounding to the tensor cores, which cut the others off."""
    half = 0 if WISH == "triton" else 0x1000
    return ((x.view(torch.int32) + half) & ~0x1FFF).view(torch.float32) if isinstance(x, Tensor) else x


def to(device: torch.device, value: Any) -> Any:
    """``value`` there: a tensor, a key, a tuple with some; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(to(device, item) for item in value)
    return value.to(device) if isinstance(value, (Tensor, MixKey)) else value


def double(value: Any) -> Any:
    """``value`` with its tensors in float64."""
    if isinstance(value, tuple):
        return tuple(map(double, value))
    return value.double() if isinstance(value, Tensor) else value


def check(op: str, device: torch.device, *args: Any, layout: str = "contiguous", out_dtype: torch.dtype | None = None,
          precision: torch.dtype | str | None = None, **options: Any) -> Tensor:  # fmt: skip
    """``op`` there, fresh and into a guarded buffer, against the reference in float64; the result, on the CPU.

    ``args`` are on the CPU, ``layout`` is that of the first one. What plain PyTorch loses is measured on the device;
    for TF32 it is what the rounded ``args`` lose.
    """
    here, named = list(to(device, args)), {name: to(device, option) for name, option in options.items()}
    if layout != "contiguous":
        here[0] = LAYOUTS[layout](here[0])
    wire = {} if out_dtype is None else {"out_dtype": out_dtype}
    with tf32(precision == TF32):
        result = check_out(getattr(facemix_ops, op), *here, **named, **wire)
    assert result.device == here[0].device
    assert result.dtype == (out_dtype or args[0].dtype)
    spec = getattr(reference, op)
    expected = spec(*double(args), **{name: double(option) for name, option in options.items()})
    if precision == TF32:
        plain = spec(*double(tuple(map(rounded, args))), **{name: double(option) for name, option in options.items()})
    else:
        plain = None if result.dtype == torch.float64 else spec(*here, **named).cpu()
        if plain is not None and result.dtype != torch.int8:
            plain = plain.to(result.dtype)
    assert_near(result.cpu(), expected, plain)
    return result.cpu()


def check_gradients(op: str, device: torch.device, call: Callable[..., Tensor], spec: Callable[..., Tensor],
                    key: MixKey, tensors: list[Tensor], layout: str = "contiguous") -> None:  # fmt: skip
    """All gradients of ``call(key, *tensors)`` there, in their dtypes, against those of ``spec`` in float64.

    ``layout`` is that of the first one.
    """
    exact = [t.double().requires_grad_() for t in tensors]
    there = [t.to(device) for t in tensors]
    there[0] = LAYOUTS[layout](there[0])
    ours, plain = ([t.detach().clone().requires_grad_() for t in there] for _ in range(2))
    result, expected, loose = call(key.to(device), *ours), spec(key, *exact), spec(key.to(device), *plain)
    seed = torch.randn(expected.shape).to(result.dtype)
    result.backward(seed.to(device))
    expected.backward(seed.double())
    loose.backward(seed.to(device, loose.dtype))
    for a, e, p in zip(ours, exact, plain, strict=True):
        assert a.grad is not None, op
        assert a.grad.dtype == a.dtype
        assert_near(a.grad.cpu(), e.grad, p.grad.cpu())


def calls(dtype: torch.dtype = torch.float32, batch: int = 16, ops: Any = facemix_ops) -> dict[str, Call]:
    """Every op with all its tensors, on the CPU: ``f(key, *tensors)``, the tensors; images first. ``ops`` has them."""
    x, y, c = torch.randn(batch, 3, 12, 10).to(dtype), torch.randn(batch, 16).to(dtype), torch.randn(3)
    slope, residual = torch.tensor([0.2]), torch.randn(batch, 3, 12, 10).to(dtype)
    weight, bias = torch.randn(16, 3, 3, 3).to(dtype), torch.randn(16).to(dtype)

    def conv(key: MixKey, x: Tensor, w: Tensor, b: Tensor, p: Tensor) -> Tensor:
        return ops.conv_mix(x, w, b, key, padding=1, activation=("prelu", p), pool=(3, 2, 1))

    def act(key: MixKey, x: Tensor, s: Tensor, d: Tensor, r: Tensor, p: Tensor) -> Tensor:
        return ops.act_mix(x, key, scale=s, shift=d, residual=r, activation=("prelu", p), pool=2)

    return {
        "conv_mix": (conv, [x, weight, bias, slope]),
        "act_mix": (act, [x, c, c.flip(0), residual, slope]),
        "group_mix": (lambda key, x: ops.group_mix(x, key), [x]),
        "group_unmix": (lambda key, y: ops.group_unmix(y, key), [x]),
        "unmix_linear": (
            lambda key, y, w, b: ops.unmix_linear(y, key, w, b),
            [y, torch.randn(5, 16).to(dtype), bias[:5]],
        ),
    }


def assert_as_the_reference(op: str, result: Tensor, key: MixKey, tensors: list[Tensor]) -> None:
    """``result`` is what the op of :func:`calls` makes of ``tensors``; ``key`` is on the CPU."""
    spec, here = calls(ops=reference)[op][0], [t.detach().cpu() for t in tensors]
    assert_near(result.detach().cpu(), spec(key, *double(tuple(here))), spec(key, *here))
