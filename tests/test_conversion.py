"""convert: what it finds, what stays equal, what trains."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import key_for
from models import AlexLike, Resnet, Vgg, linear_behind
from tolerances import assert_near
from torch import Tensor, nn

from facemix_ops import MixConv2d, UnmixLinear, convert, group_unmix, pair

STEMS: dict[str, Callable[[], list[nn.Module]]] = {
    "conv": list,
    "bn": lambda: [nn.BatchNorm2d(6)],
    "relu": lambda: [nn.ReLU()],
    "bn_relu": lambda: [nn.BatchNorm2d(6), nn.ReLU(inplace=True)],
    "bn_relu_pool": lambda: [nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
    "bn_pool": lambda: [nn.BatchNorm2d(6, affine=False), nn.MaxPool2d(2)],
    "leaky": lambda: [nn.LeakyReLU(0.3)],
    "prelu_pool": lambda: [nn.PReLU(), nn.MaxPool2d((2, 3), (2, 1))],
    "identities": lambda: [nn.Identity(), nn.BatchNorm2d(6), nn.Identity(), nn.ReLU(), nn.Identity()],
    "nested": lambda: [nn.Sequential(nn.BatchNorm2d(6), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))],
    "average": lambda: [nn.ReLU(), nn.AvgPool2d(2)],
}


def settled(model: nn.Module, channels: int = 3) -> nn.Module:
    """In float64, its running statistics no longer the initial ones."""
    model.double().train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, channels, 20, 20, dtype=torch.float64) * 2 + 0.5)
    return model


def images(batch: int = 8) -> Tensor:
    return torch.randn(batch, 3, 20, 20, dtype=torch.float64)


@pytest.mark.parametrize("stem", STEMS)
def test_equal_to_the_plain_model(stem: str) -> None:
    """Where the cloud's part is linear and without biases, mixing changes nothing: in eval, and in training with all
    gradients and running statistics."""
    plain = settled(linear_behind(*STEMS[stem]()))
    mixing = convert(copy.deepcopy(plain), first="stem.0", last="fc", group_size=4)
    for training in (False, True):
        plain.train(training)
        mixing.train(training)
        x = images()
        result, expected = mixing(x), plain(x)
        assert_near(result, expected)
        names = [n for n, _ in plain.named_parameters()]
        assert names == [n for n, _ in mixing.named_parameters()]
        ours = torch.autograd.grad(result.square().sum(), list(mixing.parameters()))
        theirs = torch.autograd.grad(expected.square().sum(), list(plain.parameters()))
        assert_near(torch.cat([g.flatten() for g in ours]), torch.cat([g.flatten() for g in theirs]))
    for (name, a), (other, b) in zip(mixing.state_dict().items(), plain.state_dict().items(), strict=True):
        assert name == other
        assert_near(a.double(), b.double())


def test_resnet() -> None:
    """What followed the stem's convolution is absorbed, in place; the names stay."""
    model = settled(Resnet())
    bn, names = model.bn1, list(model.state_dict())
    assert convert(model, group_size=4, max_coeff=0.9) is model
    assert type(model.conv1) is MixConv2d
    assert type(model.fc) is UnmixLinear
    assert (model.conv1.group_size, model.conv1.max_coeff) == (4, 0.9)
    assert model.conv1.norm is model.bn1 is bn
    assert model.conv1.activation is model.relu
    assert model.conv1.pool is model.maxpool
    assert model.conv1.slot is model.fc.slot
    assert list(model.state_dict()) == names
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in Resnet().named_parameters()]
    z = torch.randn(4, 8, 5, 5)
    assert model.maxpool(model.relu(model.bn1(z))) is z
    assert model(images()).shape == (8, 10)
    with pytest.raises(ValueError, match="MixConv2d: x must have a batch that is a multiple of"):
        model(images(6))


def test_resnet_stem_values() -> None:
    """The stem gives the mix of the plain stem, and its statistics are updated once a forward."""
    plain = settled(Resnet())
    mixing = convert(copy.deepcopy(plain), group_size=4)
    key = key_for(8, 4)
    for training in (True, False):
        x = images()
        plain.train(training)
        mixing.train(training)
        expected = plain.maxpool(plain.relu(plain.bn1(plain.conv1(x))))
        assert_near(group_unmix(mixing.conv1(x, key), key), expected)
    assert mixing.bn1.num_batches_tracked == plain.bn1.num_batches_tracked == 4
    assert_near(mixing.bn1.running_var, plain.bn1.running_var)


class Keeping(Resnet):
    """Its forward pass leaves things on the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.calls, self.log = None, 0, []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.log.append(x)
        self.seen += 1
        self.features = self.layer1.features = self.conv1(x)
        self.constant = torch.ones(())
        x = self.maxpool(self.relu(self.bn1(self.features)))
        return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))


def test_looking_at_a_forward_pass_leaves_nothing_behind() -> None:
    model = Keeping()
    model.bn1.eval()
    modes, attributes = [m.training for m in model.modules()], [set(vars(m)) for m in model.modules()]
    seen = model.seen
    convert(model, group_size=4)
    assert model.features is None
    assert (model.calls, model.seen.item(), model.log) == (0, 0, [])
    assert model.seen is seen
    assert [m.training for m in model.modules()] == modes
    same = [m not in (model.conv1, model.fc) for m in model.modules()]
    after = [set(vars(m)) for m in model.modules()]
    assert all(a == b for a, b, s in zip(attributes, after, same, strict=True) if s)


def test_vgg() -> None:
    model = settled(Vgg())
    convert(model, first="features.0", last="classifier.4", group_size=2)
    assert type(model.features[0]) is MixConv2d
    assert model.features[0].norm is model.features[1]
    assert model.features[0].activation is model.features[2]
    assert model.features[0].pool is None
    assert type(model.classifier[4]) is UnmixLinear
    assert list(model.state_dict()) == list(Vgg().state_dict())
    model(images(6)).sum().backward()


def test_plain_sequential() -> None:
    """The model itself may be the container."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18 * 18, 2, bias=False)).double()
    plain = copy.deepcopy(model)
    convert(model, first="0", last="3", group_size=4)
    x = images()
    assert_near(model(x), plain(x))
    assert [type(m).__name__ for m in model][::3] == ["MixConv2d", "UnmixLinear"]


def test_residual_inline_behind_the_stem() -> None:
    """Mixed rows may take two ways through the cloud's part."""
    model = AlexLike("residual").double()
    plain = copy.deepcopy(model)
    x = images()
    assert_near(convert(model, group_size=4)(x), plain(x))


class Lenient(Resnet):
    """A forward with arguments that need not be given, as timm's vision transformers have them."""

    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Tensor, rows: bool = False, **others: Any) -> Any:
        z = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for more in (mask, *rest, *others.values()):
            z = z if more is None else z + more
        z = self.avgpool(self.layer1(z)).flatten(1)
        return (self.fc(z), z) if rows else self.fc(z)


@pytest.mark.parametrize("change", [
    lambda m: m, copy.deepcopy, lambda m: torch.load(_saved(m), weights_only=False),
    lambda m: torch.compile(m, backend="eager"),
], ids=["same", "deepcopy", "save", "compile"])  # fmt: skip
def test_arguments_that_need_not_be_given(change: Callable[[nn.Module], nn.Module]) -> None:
    """Forward is followed without them; a call that gives one, which might lead anything around the mix, is refused."""
    model = change(convert(settled(Lenient()), group_size=4).eval())
    x, more = images(), torch.zeros(8, 8, 5, 5, dtype=torch.float64)
    assert model(x).shape == model(x=x).shape == (8, 10)
    given: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((x, more), {}, "2 by position"), ((x, more, more), {}, "3 by position"), ((x,), {"mask": more}, "mask"),
        ((x,), {"rows": True}, "rows"), ((), {"x": x, "other": more}, "0 by position, other"),
    ]  # fmt: skip
    for args, kwargs, got in given:
        with pytest.raises(ValueError, match=rf"^Lenient: a call must give x and no other argument, .*{got}\. "):
            model(*args, **kwargs)


class Giving(nn.Module):
    """What the error asks for: a module that gives another one more arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Lenient()
        self.register_buffer("mask", torch.ones(8, 1, 1))

    def forward(self, *args: Tensor) -> Tensor:
        return self.inner(*args, mask=self.mask)


def test_arguments_given_from_within() -> None:
    model = convert(Giving().double(), first="inner.conv1", last="inner.fc", group_size=4)
    assert model(images()).shape == (8, 10)


class Scaled(Resnet):
    """A forward that needs two arguments."""

    def forward(self, x: Tensor, *, scale: Tensor, shift: float = 0.0) -> Tensor:
        return super().forward(x * scale + shift)


def test_several_arguments() -> None:
    model = convert(Scaled().double(), group_size=4)
    assert model(images(), scale=torch.ones(3, 1, 1)).shape == (8, 10)
    with pytest.raises(ValueError, match=r"^Scaled: a call must give x, scale and no other argument, .* shift\. "):
        model(images(), scale=torch.ones(3, 1, 1), shift=1.0)


def test_state_dicts_fit_both_ways() -> None:
    plain, other = settled(Resnet()), settled(Resnet())
    mixing = convert(settled(Resnet()), group_size=4)
    file = io.BytesIO()
    torch.save(plain.state_dict(), file)
    file.seek(0)
    mixing.load_state_dict(torch.load(file, weights_only=True))
    other.load_state_dict(mixing.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    x = images(4)
    torch.testing.assert_close(other.eval()(x), plain.eval()(x))


def test_optimiser_built_before_still_trains() -> None:
    """Parameters are the same objects, and one step is the plain model's step."""
    mixing = settled(linear_behind(nn.BatchNorm2d(6), nn.PReLU(), nn.MaxPool2d(2)))
    plain = copy.deepcopy(mixing)
    before = dict(mixing.named_parameters())
    optimisers = [torch.optim.SGD(m.parameters(), 0.01, momentum=0.9) for m in (mixing, plain)]
    convert(mixing, first="stem.0", group_size=4)
    assert all(p is before[n] for n, p in mixing.named_parameters())
    for _ in range(3):
        x = images()
        for model, optimiser in zip((mixing, plain), optimisers, strict=True):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for a, b in zip(mixing.parameters(), plain.parameters(), strict=True):
        assert_near(a.detach(), b.detach())


@pytest.mark.parametrize("change", [
    lambda m: m.float(), lambda m: m.to(torch.bfloat16), lambda m: m.half().double(), copy.deepcopy,
    lambda m: m.to(memory_format=torch.channels_last), lambda m: m.eval().train().eval(),
    lambda m: torch.load(_saved(m), weights_only=False), lambda m: m.requires_grad_(False),
], ids=["float", "bfloat16", "half_double", "deepcopy", "channels_last", "modes", "save", "frozen"])  # fmt: skip
def test_changes_after_conversion(change: Callable[[nn.Module], nn.Module]) -> None:
    """A converted model goes through what a plain one goes through."""
    plain = settled(linear_behind(nn.BatchNorm2d(6), nn.PReLU(), nn.MaxPool2d(2))).eval()
    mixing = change(convert(copy.deepcopy(plain), first="stem.0", group_size=4)).eval()
    low = change(plain) if change is not copy.deepcopy else plain
    dtype = mixing.fc.weight.dtype
    assert mixing.stem[0].norm is mixing.stem[1]
    assert mixing.stem[0].slot is mixing.fc.slot
    x = images().to(dtype)
    exact = copy.deepcopy(low).double().eval()
    assert_near(mixing(x).detach(), exact(x.double()).detach(), low.eval()(x).detach())


@pytest.mark.parametrize("change", [
    lambda m: m, copy.deepcopy, lambda m: torch.load(_saved(m), weights_only=False),
    lambda m: torch.compile(m, backend="eager"),
], ids=["same", "deepcopy", "save", "compile"])  # fmt: skip
@pytest.mark.parametrize("convert_it", [
    nn.SyncBatchNorm.convert_sync_batchnorm, lambda m: setattr(m, "bn1", nn.BatchNorm2d(8).double()),
], ids=["sync", "other"])  # fmt: skip
def test_absorbed_modules_cannot_be_replaced(
    change: Callable[[nn.Module], nn.Module], convert_it: Callable[[nn.Module], object]
) -> None:
    """They would be applied twice: an error, also of copies and where the model was compiled before."""
    model = convert(settled(Resnet()), group_size=4).eval()
    mixing = change(model)
    mixing(images())
    original = model if model in mixing.modules() else mixing
    convert_it(original)
    with pytest.raises(RuntimeError, match=r"^Resnet: 'bn1' or 'conv1' was replaced after facemix_ops.convert"):
        mixing(images())
    if original is not model:
        model(images())


@pytest.mark.parametrize("change", [
    lambda m: m, copy.deepcopy, lambda m: torch.load(_saved(m), weights_only=False),
    lambda m: torch.compile(m, backend="eager"),
], ids=["same", "deepcopy", "save", "compile"])  # fmt: skip
@pytest.mark.parametrize("head", [nn.Linear(8, 3).double(), nn.Identity(), UnmixLinear(8, 3).double(), None], ids=str)
@pytest.mark.parametrize("stem", [[], [nn.ReLU()]], ids=str)
def test_heads_are_replaced_before(
    change: Callable[[nn.Module], nn.Module], head: nn.Module | None, stem: list[nn.Module]
) -> None:
    """Rows would stay mixed: an error, also of copies and where the model was compiled before, and nothing absorbed."""
    model = convert(settled(linear_behind(*copy.deepcopy(stem))), first="stem.0", group_size=4)
    mixing = change(model)
    mixing(images())
    original = model if model in mixing.modules() else mixing
    original.fc = head
    got = f"got MixConv2d and {type(head).__name__}, replaced after facemix_ops.convert"
    with pytest.raises(RuntimeError, match=rf"^LinearBehind: 'stem.0' and 'fc' must be a pair .*, {got}"):
        mixing(images())


def test_another_pair_in_their_place() -> None:
    """What the error asks for; the first layer as well where it had absorbed nothing, whose work would be lost."""
    plain = settled(linear_behind())
    model = convert(copy.deepcopy(plain), first="stem.0", group_size=4)
    model.stem[0], model.fc = MixConv2d.from_conv(plain.stem[0], group_size=2), UnmixLinear.from_linear(plain.fc)
    pair(model.stem[0], model.fc)
    x = images()
    assert_near(model(x), plain(x))
    absorbing = convert(settled(linear_behind(nn.ReLU())), first="stem.0", group_size=4)
    absorbing.stem[0] = MixConv2d.from_conv(plain.stem[0], group_size=4)
    pair(absorbing.stem[0], absorbing.fc)
    with pytest.raises(RuntimeError, match=r"'stem.1' or 'stem.0' was replaced"):
        absorbing(images())


def test_data_parallel_is_refused() -> None:
    """Its replicas would all use the norm of the first device."""
    model = convert(settled(Resnet()), group_size=4)
    replica = model._replicate_for_data_parallel()
    for name, module in model.named_children():
        replica._modules[name] = module._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match="DistributedDataParallel, not DataParallel"):
        replica(images())


def test_converted_models_compile_as_one_graph() -> None:
    model = convert(settled(linear_behind(nn.BatchNorm2d(6), nn.ReLU())), first="stem.0", group_size=4)
    for training in (True, False):
        torch._dynamo.reset()
        compiled = torch.compile(model.train(training), backend="eager", fullgraph=True)
        state, x = copy.deepcopy(model.state_dict()), images()
        result = compiled(x)
        model.load_state_dict(state)
        assert_near(result, model(x))


def _saved(model: nn.Module) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return file


def test_two_converted_models_interleave() -> None:
    """convert pairs its layers: another model's forward in between does no harm."""
    a, b = (convert(settled(linear_behind(nn.ReLU())), first="stem.0", group_size=4).eval() for _ in range(2))
    x = images()
    expected = a(x)
    y = a.middle(a.stem(x)).mean((2, 3))
    b(x)
    assert_near(a.fc(y), expected)
