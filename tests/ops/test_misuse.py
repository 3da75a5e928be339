"""What reaches the ops past the checks of their Python faces, and what autograd does behind those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from op_samples import samples
from torch import Tensor, nn

import facemix_ops as fo
from facemix_ops.ops.library import REGISTERED


def key_of(rows: int, seed: int = 0) -> fo.MixKey:
    return fo.MixKey.sample(rows, 4, generator=torch.Generator().manual_seed(seed))


def double(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


STEMS = [("relu", None), ("leaky_relu", None), ("relu", 2), (None, 2)]


@pytest.mark.parametrize(("activation", "pool"), STEMS)
def test_vmap_over_weights(activation: Any, pool: Any) -> None:
    """Under vmap no tensor says that it wants a gradient, and autograd records all the same."""
    key, x, weights = key_of(8), double(8, 2, 6, 6), double(3, 4, 2, 3, 3).requires_grad_()
    run = lambda w: fo.conv_mix(x, w, None, key, activation=activation, pool=pool)  # noqa: E731
    together = torch.func.vmap(run)(weights)
    one_by_one = torch.stack([run(w) for w in weights])
    torch.testing.assert_close(together, one_by_one)
    seed = torch.randn_like(together)
    ours, expected = (torch.autograd.grad((y * seed).sum(), weights)[0] for y in (together, one_by_one))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("activation", "pool"), STEMS)
def test_vmap_over_inputs(activation: Any, pool: Any) -> None:
    key, x, residual = key_of(8), double(3, 8, 2, 6, 6).requires_grad_(), double(8, 2, 6, 6)
    run = lambda x: fo.act_mix(x, key, residual=residual, activation=activation, pool=pool)  # noqa: E731
    together, one_by_one = torch.func.vmap(run)(x), torch.stack([run(each) for each in x])
    seed = torch.randn_like(together)
    ours, expected = (torch.autograd.grad((y * seed).sum(), x)[0] for y in (together, one_by_one))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_gradients_of_torch_func(transform: Any) -> None:
    with pytest.raises(NotImplementedError, match=r"group_mix: gradients of torch\.func are not supported"):
        transform(lambda x: fo.group_mix(x, key_of(8)).sum())(double(8, 3))


@pytest.mark.parametrize("layer", [fo.GroupMix(4), fo.MixConv2d(2, 3, 1, group_size=4).double()], ids=["mix", "conv"])
@pytest.mark.parametrize("randomness", ["error", "different", "same"])
def test_fresh_keys_under_vmap(layer: nn.Module, randomness: str) -> None:
    """One would mix all slices."""
    x, key = double(3, 8, 2, 4, 4), key_of(8)
    with pytest.raises(RuntimeError, match=f"{type(layer).__name__}: under torch.vmap, where one fresh key would mix"):
        torch.vmap(layer, randomness=randomness)(x)
    with_a_key = torch.vmap(lambda each: layer(each, key))(x)
    torch.testing.assert_close(with_a_key, torch.stack([layer(each, key) for each in x]))


class Half(nn.Module):
    """A first half under a key that is part of it, so that a graph has it, too."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3).double()
        self.key, self.pool = key_of(8), pool

    def forward(self, x: Tensor) -> Tensor:
        y = fo.conv_mix(x, self.conv.weight, self.conv.bias, self.key, activation="relu", pool=self.pool)
        return fo.act_mix(y, self.key, activation="relu", pool=self.pool)


@pytest.mark.parametrize("pool", [None, 2])
@pytest.mark.parametrize("of", ["weight", "input"])
def test_gradients_of_a_graph_that_was_exported_without(of: str, pool: Any) -> None:
    half, x = Half(pool), double(8, 2, 10, 10)
    with torch.no_grad():
        graph = torch.export.export(half, (x,)).module()
    wanted = [x.requires_grad_()] * 2 if of == "input" else [half.conv.weight, graph.conv.weight]
    expected, ours = (
        torch.autograd.grad(run(x).square().sum(), to)[0] for run, to in zip((half, graph), wanted, strict=True)
    )
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("op", [name for name in REGISTERED if not name.startswith("sample_")])
def test_a_key_for_other_rows_is_refused(op: str) -> None:
    args, other = list(samples(op)[0]), key_of(40)
    (behind,) = (n for n, a in enumerate(args) if isinstance(a, Tensor) and a.dtype == torch.int64)
    place = behind - 1
    run = getattr(torch.ops.facemix_ops, op)
    with pytest.raises(ValueError, match=r"coeffs must be \[G, S, S\] for"):
        run(*args[:place], other.coeffs, args[place + 1], *args[place + 2 :])
    for order in (other.order, args[place + 1].int()):
        with pytest.raises(ValueError, match="order must be int64"):
            run(*args[: place + 1], order, *args[place + 2 :])


@pytest.mark.filterwarnings("ignore")  # of what tracing does not follow: that is the point
def test_a_traced_graph_refuses_another_batch() -> None:
    key, weight = key_of(16), torch.randn(8, 3, 3, 3)
    traced = torch.jit.trace(lambda x: fo.conv_mix(x, weight, None, key), (torch.randn(16, 3, 6, 6),))
    with pytest.raises((ValueError, RuntimeError), match="coeffs must be"):
        traced(torch.randn(8, 3, 6, 6))


@pytest.mark.parametrize("op", ["act_mix_jvp", "act_mix_vjp", "conv_mix_vjp"])
def test_codes_of_another_result_are_refused(op: str) -> None:
    key, x = key_of(8), torch.randn(8, 2, 6, 6)
    y, codes = torch.randn(8, 2, 3, 3), torch.zeros(8, 2, 2, 3, dtype=torch.uint8)
    arguments: dict[str, tuple[Any, ...]] = {
        "act_mix_jvp": (x, codes[:, :1], key.coeffs, key.order, 1.0, 0.0, [2, 2, 2, 2, 0, 0]),
        "act_mix_vjp": (y, codes, key.coeffs, key.order, 6, 6, 1.0, 0.0, [2, 2, 2, 2, 0, 0]),
        "conv_mix_vjp": (y, x, codes, key.coeffs, key.order, [1, 1], [1, 1], [0, 0], [1, 1], 0.0, [2, 2, 2, 2, 0, 0]),
    }
    with pytest.raises(ValueError, match=f"{op}: (y|codes) must have shape"):
        getattr(torch.ops.facemix_ops, op)(*arguments[op])


def calls() -> dict[str, Callable[..., Tensor]]:
    key, weight, last = key_of(8), torch.randn(2, 2, 1, 1), torch.randn(6, 6)
    return {
        "group_mix": lambda x, **more: fo.group_mix(x, key, **more),
        "group_unmix": lambda x, **more: fo.group_unmix(x, key, **more),
        "act_mix": lambda x, **more: fo.act_mix(x, key, activation="relu", **more),
        "conv_mix": lambda x, **more: fo.conv_mix(x, weight, None, key, **more),
        "unmix_linear": lambda x, **more: fo.unmix_linear(x, key, last, **more),
    }


@pytest.mark.parametrize("op", calls())
def test_a_graph_that_saved_out_is_not_wrong_in_silence(op: str) -> None:
    buffer, factor = torch.randn(8, 2, 6, 6), torch.ones(8, 2, 6, 6, requires_grad=True)
    product = buffer * factor
    with torch.no_grad():
        calls()[op](torch.randn(8, 2, 6, 6), out=buffer)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@pytest.mark.parametrize("op", calls())
def test_forward_mode_is_refused(op: str) -> None:
    x = torch.randn(8, 2, 6, 6)
    with pytest.raises(NotImplementedError, match=f"{op}: forward-mode"):
        torch.func.jvp(calls()[op], (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        calls()[op](x)  # no tangent, no objection
        with pytest.raises(NotImplementedError, match=f"{op}: forward-mode"):
            calls()[op](torch.autograd.forward_ad.make_dual(x, x))


def test_a_slope_on_another_device_is_refused() -> None:
    x, slope = torch.randn(8, 2, 6, 6), torch.full((1,), 0.25, device="meta")
    for run in (
        lambda: fo.act_mix(x, key_of(8), activation=("prelu", slope)),
        lambda: fo.conv_mix(x, torch.randn(2, 2, 1, 1), None, key_of(8), activation=("prelu", slope)),
    ):
        with pytest.raises(ValueError, match="activation must have its weight on cpu, got meta"):
            run()


def test_out_may_lie_in_the_inputs_storage_and_not_in_its_memory() -> None:
    """Storages do not tell: two tensors over one array have one each."""
    array, key = np.zeros((20, 10), np.float32), key_of(8)
    x = torch.from_numpy(array[:8])
    for first in (2, 7):
        with pytest.raises(ValueError, match="out must not share memory with an input"):
            fo.group_mix(x, key, out=torch.from_numpy(array[first : first + 8]))
    whole = torch.zeros(16, 10)
    fo.group_mix(whole[:8], key, out=whole[8:])
    fo.group_mix(x, key, out=torch.from_numpy(array[8:16]))
