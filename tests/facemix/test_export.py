"""What neither side could run is refused when it is written."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facemix.cloud.model import CloudModel
from facemix.edge import load_half
from facemix.export import _folded, export_cloud, export_edge
from facemix.export_collapsed import export_collapsed
from facemix.export_torch import export_edge_torch
from facemix.infer.local import LocalModel, _first
from facemix.models import build
from torch import nn
from torch_edge import MEAN, STD, Network, exported

import facemix_ops as fo
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name in the config of PATH must be a text of 1 to 256 printable characters, got ''"),
        ({"version": 0}, "version in the config of PATH must be an integer from 1 to"),
        ({"builder": "resnet"}, "PATH must name a network that can be built, got build: name must be one of"),
        ({"options": {}}, "the weights in PATH must suit its config, got Error(s) in loading state_dict"),
        ({"image_shape": (1, 32, 32)}, "model must take images of image_shape, (channels, height, width), in float32"),
    ],
)
def test_a_cloud_that_could_not_be_served(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"width": 0.0625, "num_classes": 3}
    arguments = {"builder": "resnet18", "options": options, "image_shape": (3, 32, 32), "name": "m", **change}
    path = tmp_path / "cloud.safetensors"
    with pytest.raises(ValueError, match="^export_cloud: " + re.escape(message.replace("PATH", str(path)))):
        export_cloud(path, build("resnet18", options), **arguments)
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


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_of_either_kind(kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"num_classes": 6, "width": 0.125}
    model = build("resnet18", options).eval()
    cloud, edge, torch_edge = (kind(name) for name in ("cloud", "halves/edge", "halves/torch"))
    common: dict[str, Any] = {"name": "m", "pre": 1}
    export_cloud(cloud, model, "resnet18", options, (3, 20, 18), **common)
    common |= {"group_size": 4, "mean": [0.5] * 3, "std": [0.25] * 3}
    export_edge(edge, model, (3, 20, 18), **common)
    export_edge_torch(torch_edge, model, "resnet18", options, (3, 20, 18), **common)
    network = CloudModel(cloud).network
    for path in (edge, torch_edge):
        half = load_half(path)
        assert half.bundle.network == network
        LocalModel(half, cloud)
    collapsed = kind("collapsed.onnx")
    export_collapsed(collapsed, nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), (3, 2, 2), mean=[0.5] * 3, std=[0.5] * 3)
    assert Path(collapsed).is_file()


def test_a_half_from_a_pipe(tmp_path: Path) -> None:
    """It is read once."""
    edge = {"name": "m", "pre": "conv1", "post": "fc", "group_size": 4, "mean": [0.5] * 3, "std": [0.25] * 3}
    export_edge(tmp_path / "edge", build("resnet18", {"width": 0.125}).eval(), (3, 20, 18), **edge)
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes((tmp_path / "edge").read_bytes()))
    writer.start()
    assert load_half(tmp_path / "pipe").bundle.network == load_half(tmp_path / "edge").bundle.network
    writer.join()


def test_statistics_of_a_network_in_training_do_not_move(tmp_path: Path) -> None:
    """Its parts are tried on a black image."""
    options = {"width": 0.125, "num_classes": 6}
    network, shape = build("resnet18", options), (3, 20, 18)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    edge: dict[str, Any] = {"name": "m", "group_size": 4, "mean": [0.5] * 3, "std": [0.25] * 3}
    export_cloud(tmp_path / "cloud", network.train(), "resnet18", options, shape, name="m")
    export_edge(tmp_path / "edge", network.train(), shape, **edge)
    export_edge_torch(tmp_path / "torch", network.train(), "resnet18", options, shape, **edge)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("layer", [fo.GroupMix(4), fo.GroupUnmix()])
def test_every_layer_that_mixes_is_seen(layer: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"export_edge: model must be plain, .* got Sequential, which mixes in 1;"):
        export_edge(tmp_path / "edge", nn.Sequential(nn.Conv2d(3, 4, 3), layer), (3, 20, 18), name="m", group_size=4,
                    mean=[0.5] * 3, std=[0.25] * 3)  # fmt: skip


def test_a_network_that_mixes_gives_its_weights_to_a_plain_one(tmp_path: Path) -> None:
    plain, mixing = build("resnet18", {"width": 0.125}), build("resnet18", {"width": 0.125})
    fo.convert(mixing, first="conv1", last="fc", group_size=4)
    common: dict[str, Any] = {"name": "m", "pre": "conv1", "post": "fc"}
    edge = {**common, "group_size": 4, "mean": [0.5] * 3, "std": [0.25] * 3}

    def export(model: nn.Module) -> None:
        export_edge(tmp_path / "edge", model, (3, 20, 18), **edge)

    for op, call in (
        ("export_cloud", lambda: export_cloud(tmp_path / "c", mixing, "resnet18", {}, (3, 20, 18), **common)),
        ("export_edge", lambda: export(mixing)),
        ("export_edge_torch", lambda: export_edge_torch(tmp_path / "t", mixing, "resnet18", {}, (3, 20, 18), **edge)),
    ):
        advice = r"ResNet18, which mixes in conv1, fc; build a plain one .*: plain.load_state_dict\(model.state_dict"
        with pytest.raises(ValueError, match=f"{op}: model must be plain, .* got {advice}"):
            call()
    assert not list(tmp_path.iterdir())
    mixing(torch.randn(8, 3, 20, 18))  # moves its batch statistics
    plain.load_state_dict(mixing.state_dict())
    export(plain)
    norm = mixing.bn1
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(
        torch.from_numpy(Bundle.load(tmp_path / "edge").weight.copy()),
        (mixing.conv1.weight * factor.view(-1, 1, 1, 1)).detach(),
    )


def test_a_bias_before_a_norm_is_folded(tmp_path: Path) -> None:
    network = Network(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    bundle = Bundle.load(exported(network, tmp_path / "e", IMAGE, 4))
    torch.testing.assert_close(torch.from_numpy(bundle.bias.copy()), network.first[0].bias / (1 + 1e-5) ** 0.5)


def test_a_leaky_first_part_is_computed_here_as_it_was_trained(tmp_path: Path) -> None:
    network = Network(nn.Conv2d(3, 5, 3), nn.LeakyReLU(0.3))
    bundle = Bundle.load(exported(network, tmp_path / "e", IMAGE, 4))
    images = np.random.default_rng(0).integers(0, 256, (2, *IMAGE), np.uint8)
    x = ((torch.from_numpy(images) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    torch.testing.assert_close(_first(bundle, images), network.first(x), rtol=1e-4, atol=1e-4)


def test_a_norm_that_does_more_is_not_folded() -> None:
    class NormAct2d(nn.BatchNorm2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).relu()

    conv = fo.MixConv2d(3, 4, 3, group_size=4, norm=NormAct2d(4)).eval()
    with pytest.raises(ValueError, match="must be a batch norm with running statistics, got NormAct2d"):
        _folded(conv)
