"""Derivatives on the device: gradcheck of both orders in float64, and the reference's gradients in every dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, integers, key_for
from on_device import OPS, calls, check_gradients
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, reference, unmix_linear

LEAKY, POOL = ("leaky_relu", 0.3), (3, 2, 1)
BACKWARD = pytest.mark.parametrize("dtype", DTYPES)


def grad(device: torch.device, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()


@pytest.mark.parametrize("op", [group_mix, group_unmix])
def test_group_mix_gradcheck(device: torch.device, op: Any) -> None:
    key, args = key_for(6, 3).to(device), (grad(device, 6, 4),)
    assert gradcheck(lambda x: op(x, key), args)
    assert gradgradcheck(lambda x: op(x, key), args)


def test_unmix_linear_gradcheck(device: torch.device) -> None:
    key = key_for(4, 2).to(device)
    args = grad(device, 4, 3), grad(device, 5, 3), grad(device, 5)
    assert gradcheck(lambda y, w, b: unmix_linear(y, key, w, b), args)
    assert gradgradcheck(lambda y, w, b: unmix_linear(y, key, w, b), args)


@pytest.mark.parametrize("activation", ["relu", "prelu"])
@pytest.mark.parametrize("pool", [None, POOL])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_conv_mix_gradcheck(device: torch.device, activation: Any, pool: Any, layout: str) -> None:
    key, slope = key_for(4, 2).to(device), torch.tensor([-0.25], dtype=torch.float64, device=device)

    def f(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        act = ("prelu", slope) if activation == "prelu" else activation
        return conv_mix(LAYOUTS[layout](x), w, b, key, stride=(1, 2), padding=1, activation=act, pool=pool)

    args = grad(device, 4, 1, 2, 4), grad(device, 2, 1, 2, 2), grad(device, 2)
    # cuDNN's convolution, for the gradients, may add in another order each time.
    assert gradcheck(f, args, nondet_tol=1e-12)
    assert gradgradcheck(f, args, nondet_tol=1e-12)


@pytest.mark.parametrize("activation", [None, "relu", LEAKY])
@pytest.mark.parametrize("pool", [None, POOL])
def test_act_mix_gradcheck(device: torch.device, activation: Any, pool: Any) -> None:
    key = key_for(4, 2).to(device)

    def f(x: Tensor, s: Tensor, d: Tensor, r: Tensor) -> Tensor:
        return act_mix(x, key, scale=s, shift=d, residual=r, activation=activation, pool=pool)

    args = grad(device, 4, 2, 2, 3), grad(device, 2), grad(device, 2), grad(device, 4, 2, 2, 3)
    assert gradcheck(f, args)
    assert gradgradcheck(f, args)


@BACKWARD
@pytest.mark.parametrize("activation", [None, "relu", LEAKY])
@pytest.mark.parametrize("pool", [None, POOL])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_conv_mix(device: torch.device, dtype: torch.dtype, activation: Any, pool: Any, layout: str) -> None:
    """Whole numbers, so that ties and zeros are the same in every dtype."""
    options: dict[str, Any] = {"stride": 2, "padding": 1, "activation": activation, "pool": pool}
    check_gradients(
        "conv_mix", device,
        lambda key, x, w, b: conv_mix(x, w, b, key, **options),
        lambda key, x, w, b: reference.conv_mix(x, w, b, key, **options),
        key_for(16, 8),
        [integers(16, 2, 9, 8, dtype=dtype), integers(5, 2, 3, 3, low=-1, high=2, dtype=dtype),
         integers(5, dtype=dtype)], layout,
    )  # fmt: skip


@BACKWARD
@pytest.mark.parametrize("pool", [None, POOL])
@pytest.mark.parametrize("size", [3, 8])
def test_act_mix(device: torch.device, dtype: torch.dtype, pool: Any, size: int) -> None:
    compute = torch.float64 if dtype == torch.float64 else torch.float32

    def call(op: Any) -> Any:
        return lambda key, x, s, d, r, p: op(
            x, key, scale=s, shift=d, residual=r, activation=("prelu", p), pool=pool
        )  # fmt: skip

    b = 2 * size
    tensors = [integers(b, 3, 7, 8, dtype=dtype), integers(3, low=1, high=3, dtype=compute), integers(3, dtype=compute),
               integers(b, 3, 7, 8, dtype=dtype), torch.tensor([0.25], dtype=compute)]  # fmt: skip
    check_gradients("act_mix", device, call(act_mix), call(reference.act_mix), key_for(b, size), tensors)


@BACKWARD
def test_linear_ops(device: torch.device, dtype: torch.dtype) -> None:
    key, x = key_for(16, 8), torch.randn(16, 5, 4).to(dtype)
    for op in (group_mix, group_unmix):
        spec = getattr(reference, op.__name__)
        check_gradients(op.__name__, device, lambda k, x, f=op: f(x, k), lambda k, x, f=spec: f(x, k), key, [x])
    tensors = [x, torch.randn(7, 4).to(dtype), torch.randn(7).to(dtype)]
    check_gradients(
        "unmix_linear", device,
        lambda k, y, w, b: unmix_linear(y, k, w, b), lambda k, y, w, b: reference.unmix_linear(y, k, w, b),
        key, tensors,
    )  # fmt: skip


@pytest.mark.small
@pytest.mark.parametrize("op", OPS)
def test_small(device: torch.device, op: str) -> None:
    """Both derivatives run, and are finite."""
    call, tensors = calls()[op]
    there = [t.to(device).requires_grad_() for t in tensors]
    key: MixKey = key_for(16, 8).to(device)
    first = torch.autograd.grad(call(key, *there).square().sum(), there, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), there)
    assert all(g.isfinite().all() for g in (*first, *second))
