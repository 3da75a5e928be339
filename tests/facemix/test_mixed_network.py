"""A network around the mix: its parts, and its modes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from facemix.models import build
from facemix.training.mixed_network import MixedNetwork
from tiny_experiment import OF_RESNET
from torch import nn

import facemix_ops as fo


@pytest.mark.parametrize(("pre", "post"), [(1, 1), (2, 1), (3, 2)])
def test_a_mixed_network_is_its_parts_around_the_mix(pre: int, post: int) -> None:
    network = build("resnet18", {**OF_RESNET, "pre": pre, "post": post}).double()
    mixed = MixedNetwork(network, pre, post)
    assert all(module.training for module in mixed.modules())  # as the network was
    assert dict(mixed.named_parameters()).keys() == {f"network.{name}" for name, _ in network.named_parameters()}
    x = torch.randn(8, 1, 24, 24, dtype=torch.float64)
    for training in (True, False):
        assert all(module.training == training for module in mixed.train(training).network.modules())
        with fo.MixKey.sample(8, 4) as key, torch.no_grad():
            sent = fo.group_mix(mixed.first(x), key)
            expected = mixed._parts.edge_last(fo.group_unmix(mixed._parts.cloud(sent), key))
            torch.testing.assert_close(mixed(x, key), expected, rtol=1e-9, atol=1e-9)
            assert torch.equal(mixed(x), network(x))


class Dropping(nn.Module):
    """A network whose code asks for its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.body, self.neck = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.neck(self.body(torch.relu(self.conv1(x)))).mean((2, 3))
        return self.fc(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("post", ["fc", "neck"])  # who asks is in the cloud's part, or in the edge's last
@pytest.mark.parametrize("made_in", [False, True])
def test_what_asks_for_the_mode_gets_the_present_one(made_in: bool, post: str) -> None:
    network = Dropping().train(made_in)
    network.body.eval()  # a layer that somebody froze
    mixed = MixedNetwork(network, "conv1", post)
    modes = [module.training for module in (network, network.conv1, network.body)]
    assert modes == [made_in, made_in, False]
    x = torch.randn(8, 1, 16, 16)
    with fo.MixKey.sample(8, 4) as key, torch.no_grad():
        for training in (made_in, not made_in):
            if training is not made_in:
                mixed.train(training)
            assert torch.equal(mixed(x, key), mixed(x, key)) is not training
            assert torch.equal(mixed.rest(mixed.first(x)), mixed.rest(mixed.first(x))) is not training
