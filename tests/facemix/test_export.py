"""What an edge bundle cannot hold is refused when it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facemix.export import export_edge
from facemix.models import build
from torch import nn
from torch_edge import Network, exported

from facemix_ops.edge import Bundle

IMAGE = (20, 18, 3)


def test_a_model_in_training_is_exported_as_it_infers(tmp_path: Path) -> None:
    network = Network(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    network(torch.randn(4, 3, 20, 18))
    first, again = (Bundle.load(exported(network.train(mode), tmp_path / "e", IMAGE, 4)) for mode in (True, False))
    np.testing.assert_array_equal(first.weight, again.weight)
    np.testing.assert_array_equal(first.bias, again.bias)


def test_weights_of_every_dtype(tmp_path: Path) -> None:
    network = Network(nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), bias=False)
    bundle = Bundle.load(exported(network.double(), tmp_path / "edge.safetensors", IMAGE, 4))
    torch.testing.assert_close(
        torch.from_numpy(bundle.weight.copy()), (network.first[0].weight / (1 + 1e-5) ** 0.5).float()
    )
    assert not bundle.bias.any()
    assert not bundle.last_bias.any()


@pytest.mark.parametrize(
    "first",
    [
        [nn.Conv2d(3, 5, 3), nn.GELU()],
        [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.ReLU()],
        [nn.Conv2d(3, 5, 3), nn.MaxPool2d(2), nn.ReLU()],
        [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5)],
        [nn.Conv2d(3, 5, 3), nn.PReLU(5)],
        [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)],
        [nn.Conv2d(3, 6, 3, groups=3), nn.ReLU()],
        [nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), nn.ReLU()],
    ],
)
def test_first_parts_that_the_runtime_cannot_do(first: list[nn.Module], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export_edge: the first part of model must be one conv.*; got \['Conv2"):
        exported(Network(*first), tmp_path / "edge.safetensors", IMAGE, 4)
    assert not list(tmp_path.iterdir())


def test_deeper_cuts(tmp_path: Path) -> None:
    model = build("resnet18", {"num_classes": 6, "width": 0.125})
    options: dict[str, Any] = {"name": "m", "group_size": 8, "mean": [0.5] * 3, "std": [0.25] * 3}
    with pytest.raises(ValueError, match="export_edge: the first part of model must be one convolution"):
        export_edge(tmp_path / "edge.safetensors", model, (3, 32, 32), pre=2, **options)
    with pytest.raises(ValueError, match="export_edge: the last part of model must be one linear layer"):
        export_edge(tmp_path / "edge.safetensors", model, (3, 32, 32), post="layer4", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size"),
        ({"max_coeff": 0.4}, "max_coeff must be at least 0.63 for groups of 4"),
        ({"wire_dtype": "float64"}, "wire_dtype must be one of"),
        ({"classes": ["a"]}, "classes must be 5 texts"),
        ({"attributes": ["a", "b"]}, "attributes must be a name for each two scores, got 2 for 5"),
    ],
)
def test_arguments(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        exported(Network(nn.Conv2d(3, 5, 3)), tmp_path / "e", IMAGE, **{"group_size": 4, **options})
    assert not list(tmp_path.iterdir())


def test_odd_padding_and_missing_statistics(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="export_edge: the first convolution must pad both sides alike"):
        exported(Network(nn.Conv2d(3, 5, 4, padding="same")), tmp_path / "e", IMAGE, 4)
    with pytest.raises(ValueError, match="export_edge: the norm of model must be a batch norm with running statistics"):
        exported(Network(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, track_running_stats=False)), tmp_path / "e", IMAGE, 4)


def test_a_network_with_nan_weights(tmp_path: Path) -> None:
    network = Network(nn.Conv2d(3, 5, 3))
    with torch.no_grad():
        network.last.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"export_edge: tensor 'last.weight' must be finite, got 1 values"):
        exported(network, tmp_path / "e", IMAGE, 4)
