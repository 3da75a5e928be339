"""A model as the cloud runs it: compiled or not, any number of rows."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from facemix.cloud.model import CloudModel
from facemix.export import export_cloud
from facemix.models import build
from facemix.models.registry import _BUILDERS
from facemix.partition import partition
from facemix.storage import load_tensors, save_tensors
from torch import nn
from torch.nn import functional

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.0625}


def test_compiled_it_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are those of `torch.compile`; run as they are, for inductor takes a minute of C++ for them."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    network = build("vgg16", OPTIONS).eval()
    export_cloud(tmp_path / "vgg.safetensors", network, "vgg16", OPTIONS, (1, 32, 32), name="vgg")
    model = CloudModel(tmp_path / "vgg.safetensors", compile=True)
    middle = partition(network).cloud
    for rows in (1, 2, 7, 33):
        features = torch.randn(rows, *model.input_shape)
        with torch.no_grad():
            expected = middle(features.clone()).numpy()
        np.testing.assert_allclose(model.run(features.numpy()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [(1, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("activation", ["relu", "prelu", "identity"])
@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_every_activation_and_cut(name: str, activation: str, cut: tuple[int, int], tmp_path: Path) -> None:
    """The file is rebuilt and folded without a word of what only the edge needs to know."""
    pre, post = cut
    edge_only = {"num_classes": 6, "head": 5} if name == "resnet18" else {"num_classes": 6}
    options = {"in_channels": 1, "width": 0.0625, "activation": activation, "pre": pre, "post": post}
    network = build(name, options | edge_only)
    network(torch.randn(4, 1, 32, 32))
    path = tmp_path / "cloud.safetensors"
    export_cloud(path, network.eval(), name, options | edge_only, (1, 32, 32), name="m", pre=pre, post=post)
    assert load_tensors(path)[1]["options"] == options
    model = CloudModel(path)
    features = torch.randn(3, *model.input_shape)
    with torch.no_grad():
        expected = partition(network, pre, post).cloud(features.clone()).numpy()
    np.testing.assert_allclose(model.run(features.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_what_drops_out_in_training_does_not_in_the_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a network's code asks for its mode, tracing writes down the answer."""

    class Dropping(nn.Module):
        pre_blocks, post_blocks = ("first",), ("last",)

        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.middle(self.first(x)).mean((2, 3))
            return self.last(functional.dropout(x, 0.5, self.training))

    monkeypatch.setitem(_BUILDERS, "dropping", Dropping)
    network = Dropping().eval()
    export_cloud(tmp_path / "cloud.safetensors", network, "dropping", {}, (1, 16, 16), name="m")
    model = CloudModel(tmp_path / "cloud.safetensors")
    features = torch.randn(3, *model.input_shape)
    with torch.no_grad():
        expected = partition(network).cloud(features.clone()).numpy()
    np.testing.assert_allclose(model.run(features.numpy()), expected, rtol=1e-4, atol=1e-5)


def test_a_cut_that_leaves_more_than_vectors(network: torch.nn.Module, tmp_path: Path) -> None:
    options = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
    path = tmp_path / "cloud.safetensors"
    export_cloud(path, network, "resnet18", options, (1, 32, 32), name="middle", pre="relu", post="layer4")
    model = CloudModel(path)
    features = torch.randn(3, *model.input_shape)
    with torch.no_grad():
        expected = partition(network, "relu", "layer4").cloud(features).numpy()
    outputs = model.run(features.numpy())
    assert outputs.shape[1:] == model.output_shape
    assert len(model.output_shape) == 3
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"builder": "no such"}, r"bad\.safetensors must name a network .* got 'no such'; .*: --import MODULE"),
        ({"options": {"no": "such"}}, "options must suit resnet18, got"),
        ({"input_shape": [1, 2, 3]}, "must have the input_shape that its layers take, got"),
        ({"input_shape": "x"}, r"input_shape in the config of .*bad\.safetensors must be a list of integers from 1 on"),
        ({"input_shape": [8, -8, 8]}, "input_shape in the config of"),
        ({"input_shape": [16, 1 << 20, 1 << 20]}, "input_shape in the config of"),
        ({"version": 0}, "version in the config of .* must be an integer from 1 to 9223372036854775807, got 0"),
        ({"version": "1"}, "version in the config of"),
        ({"version": True}, "version in the config of"),
        ({"version": 10**100}, "version in the config of"),
        ({"name": None}, "name in the config of .* must be a text of 1 to 256 printable characters, got None"),
        ({"name": {}}, "name in the config of"),
        ({"name": "a\n\x1b[2J"}, "name in the config of"),
        ({"network": 3}, "network in the config of .* must be a text"),
        ({"builder": {}}, "builder in the config of"),
        ({"options": [1]}, "options in the config of .* must be an object"),
        ({"pre": [1]}, "pre in the config of .* must be a number or the name of a layer"),
        ({"post": None}, "post in the config of"),
        ({"pre": 10**30}, r"bad\.safetensors must name a network that can be built, got .*pre must be between"),
        ({"options": {"width": 1e308}}, r"bad\.safetensors must name a network that can be built, got"),
        ({"options": {"width": 1}}, r"the weights in .*bad\.safetensors must suit its config, got"),
    ],
)
def test_configs_that_will_not_do(cloud_file: Path, tmp_path: Path, change: dict[str, object], rule: str) -> None:
    tensors, config = load_tensors(cloud_file)
    save_tensors(tmp_path / "bad.safetensors", tensors, {**config, **change})
    with pytest.raises(ValueError, match=rule) as caught:
        CloudModel(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)
