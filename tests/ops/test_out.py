"""out=: refusals, for every op that takes one. (That it is written fully, and nothing else is, every sweep checks.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import key_for
from tolerances import assert_near
from torch import Tensor

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, unmix_linear

X = torch.randn(4, 3, 6, 5)
W = torch.randn(2, 3, 3, 3)
V = torch.randn(7, 5)
OPS: dict[str, Callable[..., Tensor]] = {
    "conv_mix": lambda key, x=X, **kwargs: conv_mix(x, W, None, key, **kwargs),
    "act_mix": lambda key, x=X, **kwargs: act_mix(x, key, activation="relu", **kwargs),
    "group_mix": lambda key, x=X, **kwargs: group_mix(x, key, **kwargs),
    "group_unmix": lambda key, x=X, **kwargs: group_unmix(x, key, **kwargs),
    "unmix_linear": lambda key, x=X, **kwargs: unmix_linear(x, key, V, **kwargs),
}
every_op = pytest.mark.parametrize("op", OPS)
# What an op takes besides, and a call with it.
S = torch.tensor([0.2])
OTHERS: dict[str, tuple[Tensor, Callable[..., Tensor]]] = {
    "conv_mix weight": (W, lambda key, t, **kwargs: conv_mix(X, t, None, key, **kwargs)),
    "conv_mix bias": (W[:, 0, 0, 0], lambda key, t, **kwargs: conv_mix(X, W, t, key, **kwargs)),
    "conv_mix slope": (S, lambda key, t, **kwargs: conv_mix(X, W, None, key, activation=("prelu", t), **kwargs)),
    "act_mix scale": (W[0, :, 0, 0], lambda key, t, **kwargs: act_mix(X, key, scale=t, **kwargs)),
    "act_mix shift": (W[0, :, 0, 0], lambda key, t, **kwargs: act_mix(X, key, shift=t, **kwargs)),
    "act_mix residual": (X + 1, lambda key, t, **kwargs: act_mix(X, key, residual=t, **kwargs)),
    "act_mix slope": (S, lambda key, t, **kwargs: act_mix(X, key, activation=("prelu", t), **kwargs)),
    "unmix_linear weight": (V, lambda key, t, **kwargs: unmix_linear(X, key, t, **kwargs)),
    "unmix_linear bias": (V[:, 0], lambda key, t, **kwargs: unmix_linear(X, key, V, t, **kwargs)),
}
every_other_input = pytest.mark.parametrize("other", OTHERS)


@pytest.fixture
def key() -> MixKey:
    return key_for(4, 2)


@every_op
@pytest.mark.parametrize(
    ("error", "change", "rule"),
    [
        (TypeError, lambda o: [1.0], "be a Tensor, got list"),
        (TypeError, lambda o: o.double(), r"have dtype torch.float32, got torch.float64"),
        (TypeError, lambda o: o.to(torch.bfloat16), "have dtype torch.float32"),
        (TypeError, lambda o: o.int(), "have dtype torch.float32, got torch.int32"),
        (ValueError, lambda o: o[:2], "have shape"),
        (ValueError, lambda o: o.flatten(), "have shape"),
        (ValueError, lambda o: o.transpose(-1, -2).contiguous().transpose(-1, -2), "have the strides"),
        (ValueError, lambda o: o[:1].expand_as(o), "have the strides"),
        (ValueError, lambda o: o.to("meta"), "be on cpu"),
        (ValueError, lambda o: o.clone().requires_grad_(), "does not support automatic differentiation"),
    ],
)
def test_refused(op: str, error: type[Exception], change: Any, rule: str, key: MixKey) -> None:
    out = change(torch.empty_like(OPS[op](key)))
    with pytest.raises(error, match=rf"^{op}: out(=| must) ?{rule}"):
        OPS[op](key, out=out)


@every_op
def test_inputs_with_gradients_are_refused(op: str, key: MixKey) -> None:
    out = torch.empty_like(OPS[op](key))
    x = X.clone().requires_grad_()
    with pytest.raises(ValueError, match=f"^{op}: out= does not support automatic differentiation"):
        OPS[op](key, x=x, out=out)
    with torch.no_grad():
        assert torch.equal(OPS[op](key, x=x, out=out), OPS[op](key))


@every_op
def test_aliases_are_refused(op: str, key: MixKey) -> None:
    """The result's own memory must not hold an input, wherever in it."""
    result = OPS[op](key)
    memory = torch.randn(result.numel() + X.numel())
    x, out = memory[: X.numel()].view(X.shape), memory[: result.numel()].view(result.shape)
    with pytest.raises(ValueError, match=f"^{op}: out must not share memory with an input"):
        OPS[op](key, x=x, out=out)


@every_other_input
def test_aliases_of_other_inputs_are_refused(other: str, key: MixKey) -> None:
    values, call = OTHERS[other]
    out = torch.zeros_like(call(key, values))
    with pytest.raises(ValueError, match=f"^{other.split()[0]}: out must not share memory with an input"):
        call(key, out.flatten()[-values.numel() :].view(values.shape), out=out)


@every_op
def test_aliases_of_a_copied_input_are_refused_or_harmless(op: str, key: MixKey) -> None:
    """Also where the input is not dense, so that kernels read a copy of it."""
    x = X.repeat_interleave(2, -1)[..., ::2]
    memory = x.untyped_storage()
    out = torch.empty(0).set_(memory, 0, OPS[op](key).shape)
    expected = OPS[op](key)
    try:
        result = OPS[op](key, x=x, out=out)
    except ValueError as error:
        assert str(error).startswith(f"{op}: out must not share memory")  # noqa: PT017
    else:
        assert torch.equal(result, expected)


@every_op
def test_channels_last_out_for_a_channels_last_input(op: str, key: MixKey) -> None:
    x = X.contiguous(memory_format=torch.channels_last)
    result = OPS[op](key, x=x)
    layout = torch.contiguous_format if op == "unmix_linear" else torch.channels_last
    out = torch.empty(result.shape, memory_format=layout)
    assert torch.equal(OPS[op](key, x=x, out=out), result)
    assert_near(out, OPS[op](key).double())


@every_op
def test_negative_bit(op: str, key: MixKey) -> None:
    """A lazily negated input, fresh and into a buffer: the sign counts."""
    x = torch.complex(X, X).conj().imag
    assert x.is_neg()
    fresh = OPS[op](key, x=x)
    assert_near(fresh, OPS[op](key, x=-X).double())
    assert_near(OPS[op](key, x=x, out=torch.empty_like(fresh)), OPS[op](key, x=-X).double())


@every_other_input
def test_negative_bit_of_other_inputs(other: str, key: MixKey) -> None:
    values, call = OTHERS[other]
    negated = torch._neg_view(values.clone())
    expected = call(key, -values)
    assert_near(call(key, negated), expected.double())
    assert_near(call(key, negated, out=torch.empty_like(expected)), expected.double())


@every_op
def test_negated_out(op: str, key: MixKey) -> None:
    out = torch._neg_view(torch.empty_like(OPS[op](key)))
    with pytest.raises(ValueError, match="out must hold its values as they are, got a negated view"):
        OPS[op](key, out=out)


@every_op
def test_empty_batch(op: str) -> None:
    nothing = key_for(0, 2)
    fresh = OPS[op](nothing, x=X[:0])
    assert OPS[op](nothing, x=X[:0], out=torch.empty_like(fresh)).shape == fresh.shape
