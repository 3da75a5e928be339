"""The gradients of conv_mix's weight and bias where x has none: conv_mix_vjp, against autograd of the reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, LAYOUTS, gradgradcheck, integers, key_for
from tolerances import assert_near
from torch import Tensor
from torch.autograd import gradcheck

from facemix_ops import conv_mix, reference
from facemix_ops.native import C

POOL = (3, 2, 1)
LEAKY = ("leaky_relu", 0.3)
# batch, group size, channels, output channels, height, width, kernel, and more of the convolution
SHAPES: list[tuple[int, int, int, int, int, int, Any, dict[str, Any]]] = [
    (8, 8, 3, 64, 13, 11, 7, {"stride": 2, "padding": 3}),
    (6, 3, 1, 1, 1, 1, 1, {}),
    (4, 2, 5, 70, 11, 40, (3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
    (14, 7, 64, 33, 6, 5, 3, {"padding": "same"}),
    (0, 4, 3, 16, 9, 9, 3, {"padding": 1}),
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls of the kernel."""
    kernel, seen = C.conv_mix_vjp, []
    monkeypatch.setattr(C, "conv_mix_vjp", lambda *args: (seen.append(args), kernel(*args))[1])
    return seen


def gradients(f: Any, x: Tensor, weight: Tensor, bias: Tensor, seed: Tensor | None = None) -> tuple[Tensor, ...]:
    """Those of weight and bias; x has none."""
    weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
    y = f(x, weight, bias)
    seed = integers(*y.shape, low=-2, high=3) if seed is None else seed
    return seed, *torch.autograd.grad(y, (weight, bias), seed.to(y.dtype))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "channels_last_sliced"])
@pytest.mark.parametrize("pool", [None, POOL])
def test_as_the_reference(shape: Any, dtype: torch.dtype, layout: str, pool: Any, calls: list[Any]) -> None:
    """Whole numbers: the same elements win, and the same are positive, in every dtype."""
    batch, size, channels, outputs, height, width, kernel, kwargs = shape
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    kwargs = kwargs | {"activation": LEAKY, "pool": pool}
    key = key_for(batch, size)
    x = integers(batch, channels, height, width, low=-2, high=3)
    weight, bias = integers(outputs, channels, *kernel, low=-1, high=2), integers(outputs)
    seed, *found = gradients(
        lambda x, w, b: conv_mix(x, w, b, key, **kwargs), LAYOUTS[layout](x.to(dtype)), weight.to(dtype), bias.to(dtype)
    )
    assert len(calls) == 1
    plain = gradients(
        lambda x, w, b: reference.conv_mix(x, w, b, key, **kwargs), x.to(dtype), weight.to(dtype), bias.to(dtype), seed
    )[1:]
    exact = gradients(lambda x, w, b: reference.conv_mix(x, w, b, key, **kwargs), x, weight, bias, seed)[1:]
    for ours, theirs, expected in zip(found, plain, exact, strict=True):
        assert ours.dtype == dtype
        assert_near(ours, expected, theirs)


@pytest.mark.parametrize("activation", [None, "relu", LEAKY])
@pytest.mark.parametrize("pool", [None, 2, POOL])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradcheck(activation: Any, pool: Any, layout: str, calls: list[Any]) -> None:
    """Of both orders, by the weight and bias alone and with an x that comes in at the second."""
    key, x = key_for(4, 2), LAYOUTS[layout](torch.randn(4, 1, 3, 4, dtype=torch.float64))
    args = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 1, 2, 2), (2,))]

    def f(w: Tensor, b: Tensor) -> Tensor:
        return conv_mix(x, w, b, key, stride=(1, 2), padding=1, activation=activation, pool=pool)

    assert gradcheck(f, args)
    assert gradgradcheck(f, args)
    assert calls

    y = f(*args)
    winners = [2, 2, 2, 2, 0, 0] if pool == 2 else [3, 3, 2, 2, 1, 1] if pool else []
    middle = 4 if pool == POOL else 0  # an element of the window that is inside the image
    codes = (torch.rand_like(y) < 0.5).to(torch.uint8) * 128 + middle if activation or pool else None
    op = torch.ops.facemix_ops.conv_mix_vjp
    conv = ([2, 2], [1, 2], [1, 1], [1, 1])
    inputs = (y.detach().requires_grad_(), x.detach().requires_grad_())
    assert gradcheck(lambda y, x: op(y, x, codes, key.coeffs, key.order, *conv, 0.3, winners), inputs)
    assert gradgradcheck(lambda y, x: op(y, x, codes, key.coeffs, key.order, *conv, 0.3, winners), inputs)


@pytest.mark.parametrize("pool", [None, POOL])
def test_the_same_bits_whatever_the_threads(pool: Any) -> None:
    key, x = key_for(16, 8), torch.randn(16, 3, 40, 40)
    weight, bias = torch.randn(64, 3, 3, 3), torch.randn(64)
    seed, *one = gradients(lambda x, w, b: conv_mix(x, w, b, key, activation="relu", pool=pool), x, weight, bias)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            found = gradients(
                lambda x, w, b: conv_mix(x, w, b, key, activation="relu", pool=pool), x, weight, bias, seed
            )[1:]
            assert all(torch.equal(a, b) for a, b in zip(one, found, strict=True))
    finally:
        torch.set_num_threads(before)


def test_only_where_x_has_no_gradient(calls: list[Any]) -> None:
    """x that needs one, or a trained slope, takes PyTorch's convolution; a bias may be missing or fixed."""
    key, w = key_for(4, 2), torch.randn(3, 2, 3, 3, requires_grad=True)
    x, slope = torch.randn(4, 2, 6, 6), torch.tensor([0.2], requires_grad=True)
    conv_mix(x.clone().requires_grad_(), w, None, key, activation="relu").sum().backward()
    conv_mix(x, w, None, key, activation=("prelu", slope)).sum().backward()
    conv_mix(x, w.detach(), torch.zeros(3, requires_grad=True), key, activation="relu").sum().backward()
    assert not calls
    conv_mix(x, w, None, key, activation="relu").sum().backward()
    conv_mix(x, w, torch.zeros(3), key).sum().backward()
    assert len(calls) == 2


def test_many_images_round_no_worse(calls: list[Any]) -> None:
    """Sums over a million products lose no more than PyTorch's do."""
    key, x = key_for(64, 8), torch.rand(64, 1, 130, 130)
    weight, bias = torch.randn(4, 1, 3, 3), torch.randn(4)
    seed = torch.rand(64, 4, 128, 128)
    found = gradients(lambda x, w, b: conv_mix(x, w, b, key), x, weight, bias, seed)[1:]
    exact = gradients(
        lambda x, w, b: reference.conv_mix(x, w, b, key), x.double(), weight.double(), bias.double(), seed.double()
    )[1:]
    plain = gradients(lambda x, w, b: reference.conv_mix(x, w, b, key), x, weight, bias, seed)[1:]
    assert calls
    for ours, expected, theirs in zip(found, exact, plain, strict=True):
        assert_near(ours, expected, theirs)
