"""Gradients: gradcheck and gradgradcheck in float64, autograd of the reference in every dtype, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import LAYOUTS, gradgradcheck, integers, key_for
from tolerances import assert_near
from torch import Tensor
from torch.autograd import gradcheck

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, reference, unmix_linear

LEAKY = ("leaky_relu", 0.3)
POOL = (3, 2, 1)


def grad(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).requires_grad_()


def apart(*shape: int) -> Tensor:
    """Values that are all different and none near 0: no step of gradcheck crosses a kink."""
    n = torch.Size(shape).numel()
    return ((torch.randperm(n).double() - n // 2 + 0.5) / n * 4).reshape(shape).requires_grad_()


def check(f: Callable[..., Tensor], *args: Tensor) -> None:
    assert gradcheck(f, args)
    assert gradgradcheck(f, args)


@pytest.mark.parametrize("op", [group_mix, group_unmix])
def test_group_mix_gradcheck(op: Any) -> None:
    key = key_for(6, 3)
    check(lambda x: op(x, key), grad(6, 4))
    check(lambda x: op(x.to(memory_format=torch.channels_last), key), grad(6, 2, 3, 2))


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_unmix_linear_gradcheck(n: int, bias: bool) -> None:
    key = key_for(4, 2)
    if bias:
        check(lambda y, w, b: unmix_linear(y, key, w, b), grad(4, 3), grad(n, 3), grad(n))
    check(lambda y, w: unmix_linear(y, key, w), grad(4, 2, 3), grad(n, 3))


@pytest.mark.parametrize("activation", [None, "relu", LEAKY, "prelu"])
@pytest.mark.parametrize("pool", [None, 2, POOL])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_act_mix_gradcheck(activation: Any, pool: Any, layout: str) -> None:
    key, slope = key_for(4, 2), torch.tensor([0.3], dtype=torch.float64, requires_grad=True)

    def f(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor, slope: Tensor) -> Tensor:
        act = ("prelu", slope) if activation == "prelu" else activation
        return act_mix(LAYOUTS[layout](x), key, scale=scale, shift=shift, residual=residual, activation=act, pool=pool)

    args = apart(4, 2, 2, 3), grad(2), grad(2), grad(4, 2, 2, 3), slope
    assert gradcheck(f, args)
    assert gradgradcheck(f, args)


@pytest.mark.parametrize("activation", [None, "relu", LEAKY, "prelu"])
@pytest.mark.parametrize("pool", [None, 2, POOL])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_conv_mix_gradcheck(activation: Any, pool: Any, layout: str) -> None:
    key, slope = key_for(4, 2), torch.tensor([-0.3], dtype=torch.float64, requires_grad=True)

    def f(x: Tensor, w: Tensor, b: Tensor, slope: Tensor) -> Tensor:
        act = ("prelu", slope) if activation == "prelu" else activation
        return conv_mix(LAYOUTS[layout](x), w, b, key, stride=(1, 2), padding=1, activation=act, pool=pool)

    args = grad(4, 1, 2, 4), grad(2, 1, 2, 2), grad(2), slope
    assert gradcheck(f, args)
    assert gradgradcheck(f, args)


def test_conv_mix_same_padding_gradcheck() -> None:
    """The uneven padding is differentiated through as well."""
    key = key_for(4, 2)
    check(lambda x, w: conv_mix(x, w, None, key, padding="same", dilation=(1, 2)), grad(4, 1, 3, 4), grad(1, 1, 2, 2))


def assert_same_gradients(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], args: list[Tensor]
) -> None:  # fmt: skip
    """Gradients of ``ours`` in the dtype of ``args`` against those of the reference in float64."""
    exact = [a.detach().double().requires_grad_() for a in args]
    plain = [a.detach().clone().requires_grad_() for a in args]
    args = [a.detach().requires_grad_() for a in args]
    result = ours(*args)
    seed = torch.randn(result.shape).to(result.dtype)
    result.backward(seed)
    theirs(*exact).backward(seed.double())
    reference_result = theirs(*plain)
    reference_result.backward(seed.to(reference_result.dtype))
    for a, e, p in zip(args, exact, plain, strict=True):
        assert a.grad is not None
        assert a.grad.dtype == a.dtype
        assert_near(a.grad, e.grad, p.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("out_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("activation", [None, "relu", LEAKY])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_conv_mix_as_the_reference(dtype: torch.dtype, out_dtype: Any, activation: Any, layout: str) -> None:
    """Whole numbers, so that ties and zeros are the same in every dtype."""
    if dtype == torch.float64:
        out_dtype = None
    key = key_for(6, 3)
    kwargs = {"stride": 2, "padding": 1, "activation": activation, "pool": POOL}
    x = LAYOUTS[layout](integers(6, 2, 9, 8, dtype=dtype))
    assert_same_gradients(
        lambda x, w, b: conv_mix(x, w, b, key, out_dtype=out_dtype, **kwargs),
        lambda x, w, b: reference.conv_mix(x, w, b, key, **kwargs),
        [x, integers(3, 2, 3, 3, low=-1, high=2, dtype=dtype), integers(3, dtype=dtype)],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pool", [None, POOL])
def test_act_mix_as_the_reference(dtype: torch.dtype, pool: Any) -> None:
    key = key_for(6, 3)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    assert_same_gradients(
        lambda x, s, d, r, p: act_mix(x, key, scale=s, shift=d, residual=r, activation=("prelu", p), pool=pool),
        lambda x, s, d, r, p: reference.act_mix(
            x, key, scale=s, shift=d, residual=r, activation=("prelu", p), pool=pool
        ),
        [
            integers(6, 3, 7, 8, dtype=dtype), integers(3, low=1, high=3, dtype=compute), integers(3, dtype=compute),
            integers(6, 3, 7, 8, dtype=dtype), torch.tensor([0.25], dtype=compute),
        ],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_linear_ops_as_the_reference(dtype: torch.dtype) -> None:
    key = key_for(6, 3)
    x = torch.randn(6, 5, 4).to(dtype)
    assert_same_gradients(lambda x: group_mix(x, key), lambda x: reference.group_mix(x, key), [x])
    assert_same_gradients(lambda x: group_unmix(x, key), lambda x: reference.group_unmix(x, key), [x])
    assert_same_gradients(
        lambda y, w, b: unmix_linear(y, key, w, b),
        lambda y, w, b: reference.unmix_linear(y, key, w, b),
        [x, torch.randn(7, 4).to(dtype), torch.randn(7).to(dtype)],
    )


def calls(key: MixKey) -> dict[str, tuple[Callable[..., Tensor], list[Tensor]]]:
    """Every differentiable op with all its tensors."""
    x, c = torch.randn(4, 3, 6, 6), torch.randn(3)
    return {
        "conv_mix": (
            lambda x, w, b, p: conv_mix(x, w, b, key, activation=("prelu", p), pool=2),
            [x, torch.randn(5, 3, 3, 3), torch.randn(5), torch.tensor([0.2])],
        ),
        "act_mix": (
            lambda x, s, d, r, p: act_mix(x, key, scale=s, shift=d, residual=r, activation=("prelu", p), pool=2),
            [x, c, c.clone(), x.clone(), torch.tensor([0.2])],
        ),
        "group_mix": (lambda x: group_mix(x, key), [x]),
        "group_unmix": (lambda x: group_unmix(x, key), [x]),
        "unmix_linear": (
            lambda y, w, b: unmix_linear(y, key, w, b), [x, torch.randn(5, 6), torch.randn(5)],
        ),
    }  # fmt: skip


@pytest.mark.parametrize("op", ["conv_mix", "act_mix", "group_mix", "group_unmix", "unmix_linear"])
def test_subsets_of_inputs(op: str) -> None:
    """Any one input alone has the gradient that it has among all; none at all leaves no graph."""
    f, args = calls(key_for(4, 2))[op]
    every = [a.clone().requires_grad_() for a in args]
    out = f(*every)
    seed = torch.randn_like(out)
    out.backward(seed)
    assert not f(*args).requires_grad
    with torch.no_grad():
        assert not f(*every).requires_grad
    for i in range(len(args)):
        alone = [a.clone().requires_grad_(j == i) for j, a in enumerate(args)]
        f(*alone).backward(seed)
        assert all((a.grad is not None) == (j == i) for j, a in enumerate(alone))
        torch.testing.assert_close(alone[i].grad, every[i].grad)


@pytest.mark.parametrize("op", ["conv_mix", "act_mix", "group_mix", "group_unmix", "unmix_linear"])
def test_closing_the_key_before_backward(op: str) -> None:
    """An error, never wrong gradients; in inference mode too."""
    for mode in (torch.no_grad, torch.inference_mode):
        key = key_for(4, 2)
        f, args = calls(key)[op]
        out = f(*[a.requires_grad_() for a in args])
        with mode():
            key.close()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


def test_strided_gradients() -> None:
    """A gradient may come expanded (from sum) or permuted."""
    key, x = key_for(4, 2), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    w = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    for reduce in (torch.sum, lambda y: (y.permute(0, 2, 3, 1).contiguous() ** 2).sum()):
        assert_same_gradients(
            lambda x, r=reduce: r(conv_mix(x, w, None, key, activation="relu", pool=2)),
            lambda x, r=reduce: r(reference.conv_mix(x, w, None, key, activation="relu", pool=2)),
            [x],
        )


@pytest.mark.parametrize("op", ["conv_mix", "act_mix"])
def test_trained_slope_is_not_lost_with_out(op: str) -> None:
    """out= has no gradients: it says so for a trained slope as for any other input."""
    key, x, slope = key_for(4, 2), torch.randn(4, 3, 5, 5), torch.tensor([0.2], requires_grad=True)
    args = (x, torch.randn(3, 3, 1, 1), None, key) if op == "conv_mix" else (x, key)
    call = conv_mix if op == "conv_mix" else act_mix
    with pytest.raises(ValueError, match=f"{op}: out= does not support automatic differentiation"):
        call(*args, activation=("prelu", slope), out=torch.empty_like(x))
