"""The edge's two halves equal the parts they stand for, fused or not."""

from __future__ import annotations

import pytest
import torch
from facemix.edge.halves import first_half, last_half
from facemix.models import build
from facemix.partition import partition
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import facemix_ops as fo


@pytest.mark.parametrize("pre", [1, 2, 3])
@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_halves_equal_the_parts(name: str, pre: int) -> None:
    """Fused or not: the first half is the edge's first part and a mix, the last half an un-mix and the last
    part.
    """
    model = build(name, {"num_classes": 5, "in_channels": 1, "width": 0.0625}).eval()
    parts = partition(model, pre)
    x = torch.randn(8, 1, 32, 32)
    key = fo.MixKey.sample(8, 4)
    with torch.no_grad():
        features = parts.edge_first(x)
        torch.testing.assert_close(
            first_half(parts.edge_first, 4)(x, key), fo.group_mix(features, key), rtol=1e-4, atol=1e-5
        )
        outputs = parts.cloud(features)
        torch.testing.assert_close(
            last_half(parts.edge_last)(fo.group_mix(outputs, key), key), model(x), rtol=1e-3, atol=1e-4
        )


def test_an_identity_keeps_nothing_from_being_fused() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Identity(), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(36, 3)
    )
    first = first_half(partition(model.eval(), pre="0", post="5").edge_first, 2)
    assert isinstance(first, fo.MixConv2d)
    assert first.activation is model[2]


class NormAct2d(nn.BatchNorm2d):
    """More than its base class does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


@pytest.mark.parametrize(
    "stem",
    [
        nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.LeakyReLU(0.2), nn.MaxPool2d((2, 3), 1, (1, 0))),
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.PReLU()),
        nn.Sequential(nn.Conv2d(1, 4, 3, padding_mode="circular", padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4)),
        nn.Sequential(nn.Conv2d(1, 4, 3, dilation=2), nn.GELU()),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(nn.Conv2d(1, 4, 3), NormAct2d(4)),
    ],
)
def test_first_half_of_other_stems(stem: nn.Sequential) -> None:
    """What `conv_mix` cannot fuse runs layer by layer, to the same result."""
    model = nn.Sequential(*stem, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = torch.randn(4, 1, 15, 15)
    model(x)
    parts = partition(model, pre="0", post=str(len(model) - 1))
    key = fo.MixKey.sample(4, 2)
    with torch.no_grad():
        expected = fo.group_mix(parts.edge_first(x), key)
        torch.testing.assert_close(first_half(parts.edge_first, 2)(x, key), expected, rtol=1e-4, atol=1e-5)


def test_last_half_of_a_computed_weight() -> None:
    """`UnmixLinear` cannot share it: un-mixed, then as it is."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), weight_norm(nn.Linear(36, 3))).eval()
    last = partition(model, pre="0", post="2").edge_last
    y, key = torch.randn(4, 36), fo.MixKey.sample(4, 2)
    with torch.no_grad():
        torch.testing.assert_close(last_half(last)(fo.group_mix(y, key), key), last(y), rtol=1e-4, atol=1e-5)
