"""convert: what it cannot convert, it names and leaves as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import AlexLike, Block, NormAct, Resnet
from torch import Tensor, nn
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from facemix_ops import convert

KINDS = {
    "functional": "relu",
    "method": "relu_",
    "functional_pool": "max_pool2d|relu",
    "clamp": "clamp",
    "maximum": "maximum",
    "product": "mul",
    "softmax": "softmax",
    "dropout_relu": "relu",
    "bn_after_relu": "bn",
    "pool_then_relu": "relu",
    "relu_twice": "relu",
    "conv_twice": "conv1",
    "skip": "conv1|relu",
    "bypass": "x",
    "input_out": "x",
    "side_output": "fc",
}
MODULES = [
    nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.ELU(), nn.Hardtanh(), nn.Softmax(1), nn.PReLU(4),
    nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(12), nn.AdaptiveMaxPool2d(2),
    nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LocalResponseNorm(3), nn.LPPool2d(2, 2),
]  # fmt: skip


def snapshot(model: nn.Module) -> list[Any]:
    """Everything that convert might change: the modules, their classes, their parameters, their attributes."""
    return [
        (name, module, type(module), sorted(vars(module)), [id(p) for p in module.parameters(recurse=False)])
        for name, module in model.named_modules(remove_duplicate=False)
    ]


def refused(model: nn.Module, names: str, error: type[Exception] = ValueError, **kwargs: Any) -> str:
    """Conversion fails, the message names one of ``names``, and the model is as it was."""
    before = snapshot(model)
    with pytest.raises(error, match=r"^convert: ") as caught:
        convert(model, group_size=4, **kwargs)
    message = str(caught.value)
    assert any(f"{name!r}" in message or f" {name}" in message for name in names.split("|")), message
    assert snapshot(model) == before
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_forward_passes(kind: str) -> None:
    refused(AlexLike(kind), KINDS[kind])


@pytest.mark.parametrize("module", MODULES, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", ["extra", "relu_extra"])
def test_modules(module: nn.Module, kind: str) -> None:
    """Behind the convolution, and behind its activation."""
    refused(AlexLike(kind, module), "extra")


class Opaque(nn.MaxPool2d):
    """A pool with a forward of its own, which cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > 0 else -super().forward(-x)


class Clamp(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


def test_subclasses_of_what_can_be_fused() -> None:
    """Their own forward would be lost."""
    refused(AlexLike("relu_extra", Opaque(2)), "extra")
    refused(AlexLike("extra", Clamp()), "clamp")


def test_modules_inside_containers() -> None:
    """A Sequential or a block of the user's own hides nothing."""
    refused(AlexLike("extra", nn.BatchNorm2d(4), nn.ReLU6()), "extra.1")
    refused(AlexLike("relu_extra", nn.LocalResponseNorm(3), nn.MaxPool2d(2)), "extra.0")
    refused(AlexLike("relu_extra", nn.Dropout(0.5), nn.MaxPool2d(2)), "extra.0")


def test_custom_block_that_begins_with_a_norm() -> None:
    """It is either fused as if it were written out, or refused; never left behind the mix."""
    model = AlexLike("extra", NormAct(4)).eval()
    x = torch.randn(8, 3, 6, 6)
    expected = model(x)
    try:
        convert(model, group_size=4)
    except ValueError as error:
        assert "extra" in str(error)  # noqa: PT017
    else:
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


class Deciding(nn.Module):
    """A block of the user's own that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_block_that_nobody_can_look_into_belongs_behind_an_activation() -> None:
    """Behind a norm alone it may begin with what belongs before the mix."""
    refused(AlexLike("extra", nn.BatchNorm2d(4), Deciding()), "extra.1")
    convert(AlexLike("relu_extra", Deciding()), group_size=4)


def test_activation_shared_with_a_block_further_on() -> None:
    """Absorbing it would take it from the block as well."""
    model = Resnet()
    model.layer1[1] = Block(8, 2, relu=model.relu)
    refused(model, "relu")


@pytest.mark.parametrize("name", ["conv1", "bn1", "fc"])
def test_modules_with_two_names(name: str) -> None:
    """The forward pass may go through either name; a swap under one would leave the other as it was."""
    model = Resnet()
    model.alias = nn.Sequential(getattr(model, name))
    message = refused(model, name)
    assert "several names" in message
    assert "alias.0" in message


class Past(Resnet):
    """Something gets past a layer where the result of a call is not looked at, or by an attribute."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.skip = nn.Conv2d(3, 8, 4, 4, bias=False)
        self.register_buffer("kept", torch.zeros(8, 8, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        z = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        aside = torch.zeros(8, 8, 8, 8)
        match self.way:
            case "behind the mix":
                z.add_(self.skip(x))
            case "view":
                z[:, 1:].view(-1).add_(self.skip(x)[:, 1:].view(-1))
            case "out":
                torch.add(z, self.skip(x), out=z)
            case "constant":
                aside[:] = self.skip(x)
                z = z + aside
            case "buffer":
                self.kept.copy_(self.skip(x))
                z = z + self.kept
            case "attribute":
                z = z + self.skip(x.data)
            case "nothing":
                x.sub_(0.5)
                z.mul_(2)
                z = z.add(aside.to(x.device, x.dtype)).reshape(x.shape[0], 8, 8, 8)
        z = self.avgpool(self.layer1(z)).flatten(1)
        out = self.fc(z)
        if self.way == "behind the un-mix":
            out.add_(z[:, :5])
        return out


@pytest.mark.parametrize("way", ["behind the mix", "view", "out", "constant", "buffer", "attribute"])
def test_input_past_the_mix(way: str) -> None:
    assert "around the mix" in refused(Past(way), "x")


class Unless(Resnet):
    """Something of the input gets past the mix unless an argument is given."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Conv2d(3, 8, 4, 4, bias=False)

    def body(self, x: Tensor, given: bool) -> Tensor:
        z = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer1(z if given else z + self.skip(x))).flatten(1))


class UnlessNamed(Unless):
    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.body(x, kept is not None)


class UnlessKeyword(Unless):
    def forward(self, x: Tensor, *, kept: Tensor | None = None) -> Tensor:
        return self.body(x, kept is not None)


class UnlessStarred(Unless):
    def forward(self, x: Tensor, *kept: Tensor) -> Tensor:
        return self.body(x, kept != ())


class UnlessOther(Unless):
    def forward(self, x: Tensor, **kept: Tensor) -> Tensor:
        return self.body(x, kept.get("kept") is not None)


@pytest.mark.parametrize("kind", [UnlessNamed, UnlessKeyword, UnlessStarred, UnlessOther])
def test_input_past_the_mix_where_an_argument_is_left_out(kind: type[Unless]) -> None:
    """As every plain call leaves it out."""
    assert "around the mix" in refused(kind(), "x")


@pytest.mark.parametrize("name", ["", "conv1", "bn1", "fc"])
def test_forward_set_on_an_object(name: str) -> None:
    """It runs in the place of its class's, which is the one that is followed, and fused."""
    model = Resnet()
    module = model.get_submodule(name)
    module.forward = module.forward
    assert "forward was set on the object" in refused(model, name or "Resnet")


def test_mixed_rows_past_the_last_layer() -> None:
    assert "mixed rows reach the output" in refused(Past("behind the un-mix"), "fc")


def test_changes_in_place_that_let_nothing_past() -> None:
    convert(Past("nothing"), group_size=4)


class Moody(Resnet):
    """Its forward pass is not the same in training and in eval."""

    def __init__(self, odd: str, mode: bool) -> None:
        super().__init__()
        self.odd, self.mode = odd, mode
        self.skip = nn.Conv2d(3, 8, 4, 4, bias=False)

    def forward(self, x: Tensor) -> Any:
        odd = self.odd if self.training is self.mode else ""
        z = self.bn1(self.conv1(x))
        z = z if odd == "norm" else self.maxpool(self.relu(z))
        z = self.avgpool(self.layer1(z + self.skip(x) if odd == "skip" else z)).flatten(1)
        return (self.fc(z), z) if odd == "rows" else self.fc(z)


@pytest.mark.parametrize("current", [True, False])
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize(("odd", "names"), [("skip", "x"), ("rows", "fc"), ("norm", "conv1|layer1.0|bn1")])
def test_either_mode_is_looked_at(current: bool, mode: bool, odd: str, names: str) -> None:
    """Whichever the model is in; each module is then in the mode it was in."""
    model = Moody(odd, mode).train(current)
    model.layer1.train(not current)
    modes = [m.training for m in model.modules()]
    message = refused(model, names)
    if odd != "norm":
        assert ("in training mode" if mode else "in eval mode") in message
    assert [m.training for m in model.modules()] == modes


def test_untraceable_forward() -> None:
    message = refused(AlexLike("branches"), "AlexLike.forward")
    assert "MixConv2d" in message


def test_converting_twice() -> None:
    model = convert(Resnet(), group_size=4)
    refused(model, "conv1")


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"first": "conv"}, "conv1"),
        ({"first": ""}, "conv1"),
        ({"first": "layer1.0.conv3"}, "layer1.0.conv1"),
        ({"last": "head"}, "fc"),
    ],
)
def test_unknown_names_list_candidates(kwargs: dict[str, str], names: str) -> None:
    message = refused(Resnet(), names, **kwargs)
    assert repr(next(iter(kwargs.values()))) in message


@pytest.mark.parametrize(
    ("error", "kwargs", "names"),
    [
        (ValueError, {"first": "bn1"}, "bn1"),
        (ValueError, {"first": "fc"}, "fc"),
        (ValueError, {"last": "conv1"}, "conv1"),
        (TypeError, {"first": 0}, "first"),
        (TypeError, {"last": None}, "last"),
        (TypeError, {"max_coeff": "0.6"}, "max_coeff"),
        (ValueError, {"max_coeff": 0.2}, "max_coeff"),
    ],
)
def test_arguments(error: type[Exception], kwargs: dict[str, Any], names: str) -> None:
    refused(Resnet(), names, error, **kwargs)


@pytest.mark.parametrize(("error", "size"), [(TypeError, "8"), (TypeError, 8.0), (ValueError, 1), (ValueError, 65)])
def test_group_size(error: type[Exception], size: Any) -> None:
    model = Resnet()
    before = snapshot(model)
    with pytest.raises(error, match=r"^convert: group_size must be"):
        convert(model, group_size=size)
    assert snapshot(model) == before


def test_not_a_module() -> None:
    with pytest.raises(TypeError, match=r"^convert: model must be an nn.Module, got str"):
        convert("resnet18")  # type: ignore[type-var]


def test_last_before_first() -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Conv2d(3, 4, 3))
    with pytest.raises(ValueError, match=r"^convert: cannot convert '0': it does not come after the first convolution"):
        convert(model, first="1", last="0")


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("parametrize", [old_weight_norm, weight_norm])
@pytest.mark.parametrize(("module", "name"), [("conv1", "weight"), ("fc", "weight"), ("fc", "bias")])
def test_computed_parameters(parametrize: Any, module: str, name: str) -> None:
    model = Resnet()
    parametrize(getattr(model, module), name, dim=None)
    assert f"must have a plain parameter as its {name}, got a computed one" in refused(model, module)


HOOKS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("name", ["conv1", "relu", "fc"])
def test_hooks_on_what_is_replaced_or_fused(name: str, kind: str) -> None:
    model = Resnet()
    getattr(getattr(model, name), f"register_{kind}")(lambda *_: None)
    assert "hooks" in refused(model, name)


def test_a_compiled_model_is_told_the_order() -> None:
    """Its modules have other names, and are compiled as they are now."""
    with pytest.raises(ValueError, match=r"^convert: model must not be compiled yet: convert it, then compile, got"):
        convert(torch.compile(Resnet()), group_size=4)
