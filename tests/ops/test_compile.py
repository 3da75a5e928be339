"""torch.compile(fullgraph=True): ops, keys and layers, with a dynamic batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import key_for
from tolerances import assert_near
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from facemix_ops import (
    MixConv2d,
    MixKey,
    UnmixLinear,
    act_mix,
    conv_mix,
    group_mix,
    group_unmix,
    sample_orthogonal,
    unmix_linear,
)

BACKENDS = ["eager", "aot_eager"]
BATCHES = (8, 12, 16)


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def round_trip(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """A key of its own, all ops but act_mix, then back: relu(conv(x)) @ v.T whatever the key."""
    key = MixKey.sample(x.shape[0], 4)
    y = conv_mix(x, w, None, key, padding=1, activation="relu", pool=2)
    y = group_mix(group_unmix(y, key), key)
    return unmix_linear(y.flatten(1), key, v)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [False, True])
def test_dynamic_batch(backend: str, training: bool) -> None:
    """One graph serves all batches, and has the gradients of the plain network."""
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(round_trip, fullgraph=True, dynamic=True, backend=counter)
    w = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=training)
    v = torch.randn(2, 5 * 9, dtype=torch.float64, requires_grad=training)
    for batch in BATCHES:
        x = torch.randn(batch, 3, 6, 6, dtype=torch.float64)
        expected = _plain(x, w, v)
        result = compiled(x, w, v)
        assert_near(result, expected)
        if training:
            ours = torch.autograd.grad(result.square().sum(), (w, v))
            theirs = torch.autograd.grad(expected.square().sum(), (w, v))
            for a, b in zip(ours, theirs, strict=True):
                assert_near(a, b)
    assert counter.frame_count == 1


def _plain(x: Tensor, w: Tensor, v: Tensor) -> Tensor:
    return F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2).flatten(1) @ v.T


@pytest.mark.parametrize("backend", BACKENDS)
def test_given_key(backend: str) -> None:
    """A key from outside is an input of the graph, not a constant of it."""

    def f(x: Tensor, key: MixKey) -> Tensor:
        return act_mix(x, key, activation="relu", pool=2)

    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=backend)
    for seed, batch in enumerate(BATCHES):
        x, key = torch.randn(batch, 3, 6, 6), key_for(batch, 4, seed)
        assert torch.equal(compiled(x, key), f(x, key))
        last = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(compiled(last, key), f(last, key))


@pytest.mark.parametrize("backend", [*BACKENDS, "inductor"])
def test_keys_differ_in_one_graph_and_from_call_to_call(backend: str) -> None:
    """A compiler that merged or repeated two draws would send two requests under one key."""

    def f(n: int) -> tuple[Tensor, ...]:
        one, two = MixKey.sample(n, 4), MixKey.sample(n, 4)
        return one.coeffs, two.coeffs, sample_orthogonal(2, 4), one.order, two.order

    if backend == "inductor":
        f = torch.compile(f, fullgraph=True, backend=backend)
    else:
        f = torch.compile(f, fullgraph=True, dynamic=True, backend=backend)
    drawn = [f(32) for _ in range(3)]
    for kind in ((0, 1), (2,), (3, 4)):
        flat = torch.stack([call[i].flatten() for call in drawn for i in kind])
        assert flat.unique(dim=0).shape[0] == flat.shape[0]
    coeffs = drawn[0][0]
    assert (coeffs @ coeffs.transpose(1, 2) - torch.eye(4, dtype=coeffs.dtype)).abs().max() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_with_block(backend: str, mode: type) -> None:
    """One graph, the key closed at its end."""

    def f(x: Tensor) -> tuple[Tensor, Tensor]:
        with MixKey.sample(x.shape[0], 4) as key:
            coeffs = key.coeffs
            back = group_unmix(group_mix(x, key), key)
        assert key.closed
        return back, coeffs

    compiled = torch.compile(f, fullgraph=True, dynamic=True, backend=backend)
    for batch in BATCHES:
        x = torch.randn(batch, 3, dtype=torch.float64)
        with mode():
            back, coeffs = compiled(x)
        assert_near(back, x)
        assert not coeffs.any()


def network(mixing: bool) -> nn.Sequential:
    """conv - norm - relu - pool - linear, mixing or plain."""
    if mixing:
        conv = MixConv2d(3, 4, 3, group_size=4, norm=nn.BatchNorm2d(4), activation="relu", pool=2)
        return nn.Sequential(conv, nn.Flatten(), UnmixLinear(36, 5)).double()
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    return nn.Sequential(
        nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2)), nn.Flatten(), nn.Linear(36, 5)
    ).double()  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_layers(backend: str, training: bool) -> None:
    """A whole model with implicit keys, in training (with gradients) and in eval."""
    mixing, plain = network(True).train(training), network(False).train(training)
    for ours, theirs in zip(mixing.state_dict().values(), plain.state_dict().values(), strict=True):
        theirs.copy_(ours)
    compiled = torch.compile(mixing, fullgraph=True, dynamic=True, backend=backend)
    for batch in BATCHES:
        x = torch.randn(batch, 3, 8, 8, dtype=torch.float64)
        result, expected = compiled(x), plain(x)
        assert_near(result, expected)
        result.square().sum().backward()
        expected.square().sum().backward()
    # All at once: the gradient of a bias before batch statistics is 0 but for rounding.
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (mixing, plain))
    assert_near(ours, theirs)
    with torch.no_grad():
        assert_near(compiled(x), plain(x))


class Broken(nn.Module):
    """Its forward pass is two graphs, the key handed from one to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = MixConv2d(3, 4, 3, group_size=4, activation="relu", pool=2), UnmixLinear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(1)
        torch._dynamo.graph_break()
        return self.fc(y)

    def plain(self, x: Tensor) -> Tensor:
        z = F.max_pool2d(F.conv2d(x, self.conv.weight, self.conv.bias).relu(), 2)
        return F.linear(z.flatten(1), self.fc.weight, self.fc.bias)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("parts", [("",), ("conv",), ("fc",), ("conv", "fc")], ids=",".join)
@pytest.mark.parametrize("training", [True, False])
def test_key_crosses_a_graph_break(backend: str, parts: tuple[str, ...], training: bool) -> None:
    """Whichever of the layers are compiled; in several threads, and with the key of an earlier pass about."""
    net = Broken().double().train(training)
    for part in parts:
        net.get_submodule(part).compile(backend=backend)
    batches = [torch.randn(8, 3, 8, 8, dtype=torch.float64) for _ in range(4)]

    def work(x: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(training):
            results = [net(x)]
            net.conv.forward(x)  # a pass that ends here
            results.append(net(x))
            assert net.conv.slot.box.key is None
        return results

    with ThreadPoolExecutor(3) as pool:
        for x, results in zip(batches, [work(batches[0]), *pool.map(work, batches[1:])], strict=True):
            expected = net.plain(x)
            for result in results:
                assert_near(result, expected)
                if training:
                    ours, theirs = (
                        torch.autograd.grad(out.square().sum(), net.conv.weight, retain_graph=True)[0]
                        for out in (result, expected)
                    )
                    assert_near(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_key_is_zeroed_behind_a_compiled_layer(backend: str) -> None:
    net = Broken().eval()
    net.conv.compile(backend=backend)
    with torch.no_grad():
        y = net.conv(torch.randn(8, 3, 8, 8))
        key = net.conv.slot.box.key
        assert key is not None
        coeffs = key.coeffs
        net.fc(y.flatten(1))
    assert key.closed
    assert not coeffs.any()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_exported(mode: type) -> None:
    """Whole models, for any number of groups from two on; the graph draws a key for each call."""
    mixing = network(True).eval()
    groups = torch.export.Dim("groups", min=2)
    with mode():
        exported = torch.export.export(mixing, (torch.randn(8, 3, 8, 8).double(),), dynamic_shapes=({0: 4 * groups},))
        graph = exported.module()
        for batch in (8, 12, 16):
            x = torch.randn(batch, 3, 8, 8, dtype=torch.float64)
            assert_near(graph(x), mixing(x))
    draws = [node for node in exported.graph.nodes if "facemix_ops.sample_" in str(node.target)]
    assert len(draws) == 2


def test_inductor() -> None:
    """The default backend, forward and backward."""
    compiled = torch.compile(round_trip, fullgraph=True, dynamic=True)
    w = torch.randn(5, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 45, dtype=torch.float64, requires_grad=True)
    for batch in (8, 12):
        x = torch.randn(batch, 3, 6, 6, dtype=torch.float64)
        result, expected = compiled(x, w, v), _plain(x, w, v)
        assert_near(result, expected)
        ours = torch.autograd.grad(result.square().sum(), (w, v))
        for a, b in zip(ours, torch.autograd.grad(expected.square().sum(), (w, v)), strict=True):
            assert_near(a, b)
