"""The three parts in sequence are the whole, whatever the cut."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from facemix.models import build
from facemix.models.resnet import ResNet18
from facemix.models.vgg import VGG16
from facemix.partition import Parts, partition
from torch import Tensor, nn


def small(name: str, **options: int) -> nn.Module:
    model = build(name, {"num_classes": 5, "in_channels": 1, "width": 0.0625, **options}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


def leaves(part: nn.Module) -> list[str]:
    return [str(node.target) for node in part.graph.nodes if node.op == "call_module"]


def blocks(part: nn.Module) -> set[str]:
    """Residual blocks, such as layer1.0, with a weight in `part`."""
    return {".".join(name.split(".")[:2]) for name in part.state_dict() if name.startswith("layer")}


def assert_equals_whole(model: nn.Module, parts: Parts, x: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(parts.edge_last(parts.cloud(parts.edge_first(x))), model(x))
    names = [name for part in parts for name in part.state_dict()]
    assert sorted(names) == sorted(model.state_dict())  # every weight is in one part, under its own name


@pytest.mark.parametrize("pre", range(1, len(ResNet18.pre_blocks) + 1))
def test_resnet18_every_pre(pre: int) -> None:
    model = small("resnet18")
    parts = partition(model, pre=pre)
    assert_equals_whole(model, parts, torch.randn(3, 1, 40, 33))
    assert leaves(parts.edge_first)[:4] == ["conv1", "bn1", "relu", "maxpool"]
    assert blocks(parts.edge_first) == set(ResNet18.pre_blocks[1:pre])
    assert blocks(parts.cloud) == set(ResNet18.pre_blocks[pre:])
    assert leaves(parts.cloud)[-1] == "avgpool"
    assert leaves(parts.edge_last) == ["fc"]


@pytest.mark.parametrize("post", range(1, len(ResNet18.post_blocks) + 1))
@pytest.mark.parametrize("head", [0, 4])
def test_resnet18_every_post(post: int, head: int) -> None:
    model = small("resnet18", head=head)
    parts = partition(model, post=post)
    assert_equals_whole(model, parts, torch.randn(3, 1, 40, 33))
    layers = ["avgpool", "head", "fc"] if head else ["avgpool", "fc"]
    assert [name for name in leaves(parts.edge_last) if not name.startswith("layer")] == layers[post == 1 :]
    assert blocks(parts.edge_last) == set(ResNet18.post_blocks[1:post])


@pytest.mark.parametrize("pre", range(1, len(VGG16.pre_blocks) + 1))
def test_vgg16_every_pre(pre: int) -> None:
    model = small("vgg16")
    parts = partition(model, pre=pre)
    assert_equals_whole(model, parts, torch.randn(2, 1, 32, 40))
    # The activation, and the pool where there is one, stay with the convolution before them.
    first = leaves(parts.cloud)[0]
    assert first == (VGG16.pre_blocks[pre] if pre < len(VGG16.pre_blocks) else "avgpool")
    assert leaves(parts.edge_last) == ["classifier.6"]


@pytest.mark.parametrize("post", [1, 2, 3, 4, 9, 14])
def test_vgg16_every_post(post: int) -> None:
    model = small("vgg16")
    parts = partition(model, pre=1, post=post)
    assert_equals_whole(model, parts, torch.randn(2, 1, 32, 32))
    assert leaves(parts.edge_last)[0] == VGG16.post_blocks[post - 1]


class Own(nn.Module):
    """A user's network: functional activation and pool, a sub-network, and code that fx cannot trace in one
    of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict({"conv": nn.Conv2d(1, 4, 3)})
        self.body = Untraceable()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem["conv"](x)), 2)
        return self.head(self.body(x).mean((2, 3), keepdim=True))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else -self.conv(x)


def test_any_module_by_name() -> None:
    model = Own().eval()
    parts = partition(model, pre="stem.conv", post="head.3")
    assert_equals_whole(model, parts, torch.randn(2, 1, 14, 14))
    assert leaves(parts.cloud) == ["body", "head.0", "head.1", "head.2"]
    assert [node.target for node in parts.edge_first.graph.nodes if node.op == "call_function"] == [
        F.relu,
        F.max_pool2d,
    ]
    later = partition(model, pre="body", post="head")
    assert_equals_whole(model, later, torch.randn(2, 1, 14, 14))
    assert leaves(later.edge_last) == ["head"]


class Between(nn.Module):
    """Something between the edge's last layer and the cloud's first."""

    def __init__(self, something: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.body, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)
        self.something = something

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.something(self.first(x))).mean((2, 3)))


MODULES = (
    *("ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh"),
    *("Hardsigmoid", "LogSigmoid", "Hardtanh", "Tanhshrink", "Hardswish", "Softplus", "Softsign", "Softshrink"),
    "Hardshrink",
)
FUNCTIONS = (
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "elu_", "celu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh"),
    *("hardsigmoid", "logsigmoid", "hardtanh", "tanhshrink", "hardswish", "softplus", "softsign", "softshrink"),
    "hardshrink",
)
ON_THE_EDGE: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"nn.{name}": getattr(nn, name)() for name in MODULES},
    **{f"F.{name}": getattr(F, name) for name in FUNCTIONS},
    "nn.Threshold": nn.Threshold(0.1, 0),
    "nn.BatchNorm2d": nn.BatchNorm2d(4),
    "nn.SyncBatchNorm": nn.SyncBatchNorm(4),
    "nn.GroupNorm": nn.GroupNorm(2, 4),
    "nn.InstanceNorm2d": nn.InstanceNorm2d(4),
    "nn.LayerNorm": nn.LayerNorm((4, 14, 14)),
    "nn.LocalResponseNorm": nn.LocalResponseNorm(3),
    "nn.MaxPool2d": nn.MaxPool2d(2),
    "nn.AdaptiveMaxPool2d": nn.AdaptiveMaxPool2d(4),
    "F.threshold": lambda x: F.threshold(x, 0.1, 0),
    "F.max_pool2d": lambda x: F.max_pool2d(x, 2),
    "F.adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 4),
    "torch.relu": torch.relu,
    "torch.sigmoid": torch.sigmoid,
    "torch.tanh": torch.tanh,
    "torch.selu_": torch.selu_,
    "torch.clamp": lambda x: torch.clamp(x, min=0),
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "a method": lambda x: x.relu(),
    "another": lambda x: x.sigmoid(),
    "one in place": lambda x: x.tanh_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_min": lambda x: x.clamp_min(0),
}


@pytest.mark.parametrize("something", ON_THE_EDGE.values(), ids=ON_THE_EDGE)
def test_norms_activations_and_pools_stay_on_the_edge(something: Callable[[Tensor], Tensor]) -> None:
    model = Between(something).eval()
    parts = partition(model, "first", "last")
    assert_equals_whole(model, parts, torch.randn(2, 1, 16, 16))
    assert len([node for node in parts.edge_first.graph.nodes if node.op not in ("placeholder", "output")]) == 2


@pytest.mark.parametrize(
    ("something", "edge", "cloud"),
    [
        (nn.Sequential(nn.Identity(), nn.ReLU()), 3, 1),
        (nn.Sequential(nn.Dropout2d(), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(), nn.Identity()), 5, 2),
        (nn.Sequential(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Conv2d(4, 4, 1)), 3, 2),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), 1, 2),
    ],
)
def test_nothing_hides_them(something: nn.Module, edge: int, cloud: int) -> None:
    """Not what does nothing, or drops out, before them; nor a container."""
    model = Between(something).eval()
    parts = partition(model, "first", "last")
    assert_equals_whole(model, parts, torch.randn(2, 1, 16, 16))
    assert (len(leaves(parts.edge_first)), len(leaves(parts.cloud))) == (edge, cloud)


def test_a_container_can_be_a_cut() -> None:
    model = Between(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 1))).eval()
    parts = partition(model, "something", "last")
    assert leaves(parts.edge_first) == ["first", "something"]


@pytest.mark.parametrize("something", [nn.Identity(), nn.AvgPool2d(2), nn.Dropout(), lambda x: x + 1])
def test_what_is_linear_or_nothing_goes_to_the_cloud(something: Callable[[Tensor], Tensor]) -> None:
    parts = partition(Between(something).eval(), "first", "last")
    assert leaves(parts.edge_first) == ["first"]


def test_sequential_by_name() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 3)
    )
    parts = partition(model.eval(), pre="0", post="5")
    assert_equals_whole(model, parts, torch.randn(2, 1, 8, 8))
    assert leaves(parts.edge_first) == ["0", "1", "2"]


def test_parts_share_their_weights_with_the_whole() -> None:
    model = small("resnet18")
    parts = partition(model)
    assert parts.edge_last.fc.weight is model.fc.weight
    assert parts.cloud.layer3 is model.layer3


class TwoCross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x)) + x)


class CalledTwice(TwoCross):
    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(self.a(x))))


class TwoInputs(TwoCross):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.c(self.b(self.a(x + y)))


class BranchesOnValues(TwoCross):
    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if x.sum() > 0 else self.b(x)


def test_arguments_of_other_types() -> None:
    nothing: Any = None
    between: Any = 1.5
    with pytest.raises(TypeError, match=r"partition: model must be an nn\.Module, got NoneType"):
        partition(nothing)
    with pytest.raises(TypeError, match="partition: pre must be a number or the name of a module, got float"):
        partition(ResNet18(width=0.0625), between)


@pytest.mark.parametrize(
    ("model", "pre", "post", "message"),
    [
        (ResNet18(width=0.0625), 12, 1, "partition: pre must be between 1 and 9, got 12"),
        (ResNet18(width=0.0625), 0, 1, "partition: pre must be between 1 and 9, got 0"),
        (ResNet18(width=0.0625), 1, 10, "partition: post must be between 1 and 8, got 10"),
        (ResNet18(width=0.0625), "conv9", 1, "partition: pre must name a module of ResNet18, got 'conv9'"),
        (ResNet18(width=0.0625), "layer4", "avgpool", "pre must end at least one layer before"),
        (ResNet18(width=0.0625), "layer4", "layer1", "pre must end at least one layer before"),
        (
            TwoCross(),
            1,
            "c",
            "partition: pre must be the name of a module, because TwoCross has no `pre_blocks`, got 1; its modules are",
        ),
        (TwoCross(), "a", "c", "got 1 that enter and 2 that leave EdgeFirst"),
        (CalledTwice(), "a", "c", "pre must name a module that is called once, got 'a', called 2 times"),
        (TwoInputs(), "a", "c", "partition: model must take one tensor, got 2 inputs"),
        (BranchesOnValues(), "a", "b", "partition: model must be traceable by torch.fx, got TraceError"),
    ],
)
def test_refusals_say_what_came(model: nn.Module, pre: int | str, post: int | str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        partition(model, pre, post)
