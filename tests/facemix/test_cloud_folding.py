"""Folded networks compute what they did."""

from __future__ import annotations

import pytest
import torch
from facemix.cloud.folding import folded
from facemix.models import build
from facemix.partition import partition
from torch import Tensor, nn


def settled(module: nn.Module) -> nn.Module:
    """In eval mode and float64, with statistics and affine values that are not the trivial ones."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                if tensor is not None:
                    nn.init.uniform_(tensor, 0.5, 2.0)
    return module.double().eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


@pytest.mark.parametrize(("name", "width", "count"), [("resnet18", 0.125, 19), ("vgg16", 0.0625, 0)])
def test_whole_networks(name: str, width: float, count: int) -> None:
    parts = partition(settled(build(name, {"num_classes": 5, "width": width})))
    x = parts.edge_first(torch.randn(2, 3, 32, 32).double())
    assert norms(parts.cloud) == count
    result = folded(parts.cloud)
    assert norms(result) == 0
    torch.testing.assert_close(result(x), parts.cloud(x), rtol=1e-10, atol=1e-10)


class Odd(nn.Module):
    """Batch norms that must stay, and one that need not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)  # its input is used again
        self.twice, self.between = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)  # the convolution is called twice
        self.shared = nn.BatchNorm2d(4)  # so is this norm
        self.batch = nn.BatchNorm2d(4, track_running_stats=False)
        self.last, self.plain = nn.Conv2d(4, 3, 3, bias=False), nn.BatchNorm2d(3)  # this may go
        self.a, self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.norm(x)
        x = self.twice(self.between(self.twice(x)))
        x = self.shared(self.a(x)) + self.shared(self.b(x))
        return self.plain(self.last(self.batch(self.c(x))))


def test_what_cannot_be_folded_stays() -> None:
    module = settled(Odd())
    x = torch.randn(3, 2, 8, 8).double()
    result = folded(module)
    assert norms(result) == 4
    torch.testing.assert_close(result(x), module(x), rtol=1e-10, atol=1e-10)


class Tied(nn.Module):
    """The weights of a convolution are used once more, and so are those of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.second, self.scales = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
        self.third, self.plain = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)) + nn.functional.conv2d(x, self.first.weight)
        x = self.scales(self.second(x)) * self.scales.weight.sum()
        return self.plain(self.third(x))


def test_weights_that_are_used_twice_stay() -> None:
    module = settled(Tied())
    x = torch.randn(3, 2, 8, 8).double()
    result = folded(module)
    assert norms(result) == 2
    torch.testing.assert_close(result(x), module(x), rtol=1e-10, atol=1e-10)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_cannot_be_traced_is_left_as_it_is() -> None:
    module = Branching()
    assert folded(module) is module
