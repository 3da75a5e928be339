"""Keys that nobody passes: from the mixing layer to the un-mixing one, within one forward pass."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tolerances import assert_near
from torch import Tensor, nn

from facemix_ops import GroupMix, GroupUnmix, MixConv2d, MixKey, UnmixLinear, pair
from facemix_ops.pairing import _SHARED


class Net(nn.Module):
    """An unchanged model: its forward knows nothing of keys. ``plain`` gives what it must compute."""

    def __init__(self, paired: bool = False) -> None:
        super().__init__()
        self.conv = MixConv2d(3, 4, 3, group_size=4, activation="relu", pool=2)
        self.fc = UnmixLinear(36, 5)
        if paired:
            pair(self.conv, self.fc)

    def first(self, x: Tensor) -> Tensor:
        return self.conv(x).flatten(1)

    def last(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.first(x)))

    def plain(self, x: Tensor) -> Tensor:
        z = nn.functional.conv2d(x, self.conv.weight, self.conv.bias).relu()
        return nn.functional.linear(nn.functional.max_pool2d(z, 2).flatten(1), self.fc.weight, self.fc.bias)


@pytest.fixture(autouse=True)
def _empty_slot() -> None:
    _SHARED.box.key = None


def net(paired: bool = False, kind: type[Net] = Net) -> Net:
    return kind(paired).double()


class Bent(Net):
    """Un-mixed first; then two heads, behind what bends."""

    def __init__(self, paired: bool = False) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(36, 3), nn.Linear(36, 2)])
        self.fc = GroupUnmix()
        if paired:
            pair(self.conv, self.fc)

    def last(self, y: Tensor) -> Tensor:
        return torch.cat([head(y.tanh()) for head in self.heads], 1)

    def plain(self, x: Tensor) -> Tensor:
        z = nn.functional.conv2d(x, self.conv.weight, self.conv.bias).relu()
        return self.last(nn.functional.max_pool2d(z, 2).flatten(1))


def images(batch: int = 8) -> Tensor:
    return torch.randn(batch, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("kind", [Net, Bent])
@pytest.mark.parametrize("paired", [False, True])
def test_unchanged_model(paired: bool, kind: type[Net]) -> None:
    """Training and eval, batches of any multiple; gradients as well."""
    model = net(paired, kind)
    for batch in (4, 8, 12):
        x = images(batch)
        result, expected = model(x), model.plain(x)
        assert_near(result, expected)
        ours = torch.autograd.grad(result.square().sum(), list(model.parameters()))
        theirs = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
        for a, b in zip(ours, theirs, strict=True):
            assert_near(a, b)
    with torch.no_grad():
        assert_near(model.eval()(x), model.plain(x))
    with torch.inference_mode():
        assert_near(model(x), model.plain(x))


def test_every_forward_has_a_fresh_key() -> None:
    model, x, seen = net(), images(), []
    for _ in range(4):
        seen.append(model.first(x).detach().flatten())
        model.conv.slot.box.key = None
    assert torch.stack(seen).unique(dim=0).shape[0] == 4


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("kind", [Net, Bent])
def test_key_is_zeroed_without_gradients(mode: type, paired: bool, kind: type[Net]) -> None:
    model = net(paired, kind)
    with mode():
        y = model.first(images())
        key = model.conv.slot.box.key
        coeffs = key.coeffs
        assert coeffs.any()
        model.fc(y)
        assert not coeffs.any()
    assert key.closed
    assert model.conv.slot.box.key is None


def test_key_is_zeroed_where_nothing_is_trained() -> None:
    """Gradients may be enabled and yet none be wanted: a frozen model needs its key no longer."""
    model = net().requires_grad_(False)
    y = model.first(images())
    key = model.conv.slot.box.key
    model.fc(y)
    assert key.closed


def test_key_stays_for_backward() -> None:
    model = net()
    y = model.first(images())
    key = model.conv.slot.box.key
    out = model.fc(y)
    assert not key.closed
    out.sum().backward()


def test_given_keys_are_left_open() -> None:
    model, key = net(), MixKey.sample(8, 4)
    with torch.no_grad():
        x = images()
        assert_near(model.fc(model.conv(x, key).flatten(1), key), model.plain(x))
    assert not key.closed
    assert model.conv.slot.box.key is None


@pytest.mark.parametrize("mixer", [MixConv2d(3, 4, 3, group_size=4), GroupMix(4)], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_given_key_leaves_none_for_later(mixer: nn.Module, mode: type) -> None:
    """Nor one of a pass before, which would un-mix these rows to something else."""
    x, key = torch.randn(8, 3, 8, 8), MixKey.sample(8, 4)
    with mode():
        before = mixer(x)
        stale = mixer.slot.box.key
        with pytest.raises(ValueError, match=r"^GroupUnmix: key must be given"):
            GroupUnmix()(mixer(x, key))
    assert stale.closed is not before.requires_grad
    if before.requires_grad:
        before.square().sum().backward()
    assert not key.closed


def test_a_key_that_a_graph_has_stays() -> None:
    """Whether its rows come back with the graph, or detached."""
    model, x = net(), images()
    y = model.first(x)
    key = model.conv.slot.box.key
    with torch.no_grad():
        assert_near(model.fc(y.detach()), model.plain(x))
    assert not key.closed
    y.sum().backward()


def test_keys_are_for_one_head() -> None:
    model, x = net(), images()
    y = model.first(x)
    model.fc(y)
    with pytest.raises(ValueError, match=r"another layer has un-mixed with its key .*for several heads un-mix once"):
        UnmixLinear(36, 2).double()(y)


def test_nested_models_need_pairs() -> None:
    """One mixing network inside another: right where they are paired, an error where not."""
    outer, inner = net(paired=True), net(paired=True)
    x, z = images(), images()
    with torch.no_grad():
        y = outer.first(x)
        assert_near(inner(z), inner.plain(z))
        assert_near(outer.fc(y), outer.plain(x))
        outer, inner = net(), net()
        y = outer.first(x)
        inner(z)
        with pytest.raises(ValueError, match=r"^UnmixLinear: key must be given.*pair"):
            outer.fc(y)


@pytest.mark.parametrize("order", ["abab", "abba"])
def test_interleaved_models_need_pairs(order: str) -> None:
    a, b, x = net(paired=True), net(paired=True), images()
    with torch.no_grad():
        ya, yb = a.first(x), b.first(x)
        last = (a.fc, ya, a), (b.fc, yb, b)
        for fc, y, model in last if order == "abab" else last[::-1]:
            assert_near(fc(y), model.plain(x))
        a, b = net(), net()
        ya, yb = a.first(x), b.first(x)
        pairs = (a.fc, ya), (b.fc, yb)
        one, two = pairs if order == "abab" else pairs[::-1]
        one[0](one[1])  # takes the other's key: nothing can tell yet
        with pytest.raises(ValueError, match=r"^UnmixLinear: key must be"):
            two[0](two[1])


def test_unmixing_without_a_mix() -> None:
    with pytest.raises(ValueError, match=r"^UnmixLinear: key must be given, or left by a mixing layer"):
        UnmixLinear(3, 2)(torch.randn(4, 3))
    model = net()
    y = model.first(images())
    model.fc(y)
    with pytest.raises(ValueError, match=r"^UnmixLinear: key must be"):
        model.fc(y)  # one key, one use


def test_a_refused_reply_leaves_the_key_for_the_right_one() -> None:
    mix, unmix, x = GroupMix(4), GroupUnmix(), torch.randn(8, 3)
    with torch.no_grad():
        y = mix(x)
        with pytest.raises(ValueError, match="group_unmix: key must be for as many rows as y has: 4"):
            unmix(y[:4])
        assert_near(unmix(y), x.double())
    with pytest.raises(ValueError, match="GroupUnmix: key must be given"):
        unmix(y)


def test_a_mix_that_fails_closes_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, sample = [], MixKey.sample
    monkeypatch.setattr(MixKey, "sample", lambda *args, **kwargs: keys.append(sample(*args, **kwargs)) or keys[-1])
    with pytest.raises(ValueError, match="x"):
        MixConv2d(3, 4, 3, group_size=4)(torch.randn(8, 2, 5, 5))
    assert [key.closed for key in keys] == [True]


@pytest.mark.parametrize("paired", [False, True])
def test_exception_in_the_middle(paired: bool) -> None:
    """A forward that fails half-way does not spoil the next one."""
    model, x = net(paired), images()
    model.first(images(12))
    assert_near(model(x), model.plain(x))
    with pytest.raises(ValueError, match="multiple of group_size"):
        model(images(6))
    assert_near(model(x), model.plain(x))


@pytest.mark.parametrize("paired", [False, True])
def test_threads_share_a_model(paired: bool) -> None:
    """Eight threads step through the same model in lockstep: slots are theirs alone."""
    model, barrier = net(paired).eval(), threading.Barrier(8)
    batches = [images() for _ in range(8)]

    def work(x: Tensor) -> Tensor:
        with torch.no_grad():
            barrier.wait()
            y = model.first(x)
            barrier.wait()
            return model.fc(y)

    with ThreadPoolExecutor(8) as pool:
        for x, result in zip(batches, pool.map(work, batches), strict=True):
            assert_near(result, model.plain(x))


@pytest.mark.parametrize("kind", [Net, Bent])
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_have_slots_of_their_own(paired: bool, clone: object, kind: type[Net]) -> None:
    """A copy of a pair is a pair, also while the original is in the middle of a forward."""
    model, x = net(paired, kind), images()
    y = model.first(x)
    twin = clone(model)  # type: ignore[operator]
    assert_near(twin(x), twin.plain(x))
    assert twin.conv.slot.box.key is None
    if paired:
        assert_near(model.last(model.fc(y)), model.plain(x))
        assert twin.conv.slot is twin.fc.slot
        assert twin.conv.slot is not model.conv.slot


def test_a_copied_layer_still_meets_the_others() -> None:
    model, x = net(), images()
    model.conv = copy.deepcopy(model.conv)
    assert_near(model(x), model.plain(x))


@pytest.mark.parametrize("paired", [False, True])
def test_no_key_is_ever_saved(paired: bool) -> None:
    """Neither with the state dict nor with the whole model, in the middle of a forward as well."""
    model = net(paired)
    model.first(images())
    key = model.conv.slot.box.key
    assert list(model.state_dict()) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    needles = [key.coeffs[0].numpy().tobytes(), key.coeffs[0, 0].numpy().tobytes(), key.order.numpy().tobytes()]
    for what in (model, model.state_dict()):
        file = io.BytesIO()
        torch.save(what, file)
        assert not any(needle in file.getvalue() for needle in needles)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    assert list(torch.load(file, weights_only=True)) == list(model.state_dict())


def test_group_mix_meets_unmix_linear() -> None:
    mix, unmix = GroupMix(4), UnmixLinear(5, 2)
    pair(mix, unmix)
    x = torch.randn(8, 5)
    assert_near(unmix(mix(x)), nn.functional.linear(x, unmix.weight, unmix.bias).double())


@pytest.mark.parametrize(
    "layers", [(nn.Conv2d(3, 4, 3), UnmixLinear(2, 2)), (GroupMix(2), nn.Linear(2, 2)), (None, None)]
)
def test_pair_checks(layers: tuple[nn.Module, nn.Module]) -> None:
    with pytest.raises(TypeError, match=r"^pair: mix and unmix must be"):
        pair(*layers)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_the_mixing_half(reentrant: bool) -> None:
    """Recomputed in backward, the first half would draw another key: an error, or the right gradients."""
    model, x = net(), images().requires_grad_()
    y = torch.utils.checkpoint.checkpoint(model.first, x, use_reentrant=reentrant)
    try:
        (ours,) = torch.autograd.grad(model.fc(y).square().sum(), x) if not reentrant else (_backward(model.fc(y), x),)
    except RuntimeError as error:
        assert "key" in str(error)  # noqa: PT017
        return
    (theirs,) = torch.autograd.grad(model.plain(x).square().sum(), x)
    assert_near(ours, theirs)


def _backward(result: Tensor, x: Tensor) -> Tensor:
    result.square().sum().backward()
    assert x.grad is not None
    return x.grad


def test_checkpointing_the_whole_forward() -> None:
    """Both halves recomputed: an error, or the right gradients."""
    model, x = net(), images().requires_grad_()
    result = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
    try:
        (ours,) = torch.autograd.grad(result.square().sum(), x)
    except RuntimeError as error:
        assert "key" in str(error)  # noqa: PT017
        return
    (theirs,) = torch.autograd.grad(model.plain(x).square().sum(), x)
    assert_near(ours, theirs)


def test_checkpointing_with_a_given_key() -> None:
    """A key of one's own is the same in the recomputation."""
    model, key, x = net(), MixKey.sample(8, 4), images().requires_grad_()
    y = torch.utils.checkpoint.checkpoint(lambda x: model.conv(x, key).flatten(1), x, use_reentrant=False)
    (ours,) = torch.autograd.grad(model.fc(y, key).square().sum(), x)
    (theirs,) = torch.autograd.grad(model.plain(x).square().sum(), x)
    assert_near(ours, theirs)


def test_key_stays_where_only_the_last_layer_is_trained() -> None:
    model, x = net(), images()
    model.conv.requires_grad_(False)
    ours, theirs = (torch.autograd.grad(out.square().sum(), model.fc.weight)[0] for out in (model(x), model.plain(x)))
    assert_near(ours, theirs)


def test_key_stays_where_the_last_layer_is_only_evaluated() -> None:
    """An accuracy without gradients, then a backward pass through the layer that mixed."""
    model, x = net(), images()
    y = model.first(x)
    with torch.no_grad():
        assert_near(model.fc(y), model.plain(x))
    y.square().sum().backward()  # mixing is orthogonal: the plain features' norm
    z = nn.functional.conv2d(x, model.conv.weight, model.conv.bias).relu()
    (expected,) = torch.autograd.grad(nn.functional.max_pool2d(z, 2).square().sum(), model.conv.weight)
    assert_near(model.conv.weight.grad, expected)
