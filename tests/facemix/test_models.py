"""The networks: sizes, names of weights, options, and the registry."""

import math
import re

import numpy as np
import pytest
import torch
from facemix.cost import partition_cost
from facemix.models import build, build_bare, names, register
from facemix.partition import partition
from torch import nn

import facemix_ops as fo


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name: str, **options: object) -> nn.Module:
    return build_bare(name, options)


def test_a_bare_network_has_shapes_and_no_weights() -> None:
    state = on_meta("wide_linear", num_classes=3, image_size=[24, 24]).state_dict()
    whole = build("wide_linear", {"num_classes": 3, "image_size": [24, 24]}).state_dict()
    assert all(tensor.is_meta for tensor in state.values())
    assert {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in whole.items()}


def test_resnet18_has_the_papers_11_21_million_parameters() -> None:
    # The paper counts the weights of convolutions and linear layers; batch norms add 0.01 million.
    model = on_meta("resnet18", num_classes=80)
    counted = sum(parameters(module) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    assert round(counted / 1e6, 2) == 11.21


def test_published_sizes() -> None:
    # The counts that torchvision documents for its ImageNet weights.
    assert parameters(on_meta("resnet18")) == 11_689_512
    assert parameters(on_meta("vgg16")) == 138_357_544


def test_resnet18_state_dict_has_torchvisions_names() -> None:
    state = on_meta("resnet18").state_dict()
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in norm)}
    for stage in range(1, 5):
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            for number in (1, 2):
                expected |= {f"{prefix}.conv{number}.weight", *(f"{prefix}.bn{number}.{p}" for p in norm)}
        if stage > 1:
            prefix = f"layer{stage}.0.downsample"
            expected |= {f"{prefix}.0.weight", *(f"{prefix}.1.{part}" for part in norm)}
    assert set(state) == expected
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)


def test_vgg16_state_dict_has_torchvisions_names() -> None:
    state = on_meta("vgg16").state_dict()
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    layers = [*(f"features.{n}" for n in convolutions), *(f"classifier.{n}" for n in (0, 3, 6))]
    assert set(state) == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert state["features.28.weight"].shape == (512, 512, 3, 3)
    assert state["classifier.0.weight"].shape == (4096, 25088)


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", (33, 47)), ("resnet18", (8, 8)), ("vgg16", (32, 41)), ("vgg16", (64, 64))]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channels_and_resolution(name: str, size: tuple[int, int], channels: int) -> None:
    model = build(name, {"num_classes": 5, "in_channels": channels, "width": 0.0625}).eval()
    with torch.no_grad():
        scores = model(torch.randn(2, channels, *size))
    assert scores.shape == (2, 5)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
@pytest.mark.parametrize("pre", [1, 3])
def test_prelu_starts_linear_in_the_cloud_and_never_on_the_edge(name: str, pre: int) -> None:
    model = build(name, {"width": 0.0625, "activation": "prelu", "pre": pre})
    slopes = [module for module in model.modules() if isinstance(module, nn.PReLU)]
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert slopes
    assert all((module.weight == 1).all() for module in slopes)
    # A residual block has two activations, the stem and a convolution of VGG one.
    assert len(relus) == (1 + 2 * (pre - 1) if name == "resnet18" else pre)


def activations(name: str, **options: object) -> list[tuple[str, str]]:
    """Name and type of each activation and pool, in order."""
    kinds = (nn.ReLU, nn.PReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d)
    model = build(name, {"width": 0.0625, **options})
    return [(where, type(module).__name__) for where, module in model.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("activation", ["prelu", "identity"])
@pytest.mark.parametrize(("pre", "post"), [(1, 1), (1, 2), (3, 3), (2, 8)])
def test_resnet18_has_relu_on_the_edges_blocks_alone(activation: str, pre: int, post: int) -> None:
    edge = {*range(1, pre + 1), *range(11 - post, 10)}
    expected = [("relu", "ReLU"), ("maxpool", "MaxPool2d")]
    for block in range(2, 10):
        kind = "ReLU" if block in edge else {"prelu": "PReLU", "identity": "Identity"}[activation]
        name = f"layer{block // 2}.{block % 2}"
        expected += [(f"{name}.relu1", kind), (f"{name}.relu2", kind)]
    assert activations("resnet18", activation=activation, pre=pre, post=post) == expected


def test_vgg16_has_relu_and_max_pools_on_the_edges_layers_alone() -> None:
    """Convolutions 1 and 2 and the pool behind them, the last two, and the classifier are the edge's."""
    kinds = [kind for _, kind in activations("vgg16", activation="identity", pre=2, post=5)]
    expected = ["ReLU", "ReLU", "MaxPool2d", *["Identity"] * 2, "AvgPool2d"]
    expected += [*["Identity"] * 3, "AvgPool2d"] * 2
    assert kinds == [*expected, "Identity", "ReLU", "ReLU", "MaxPool2d", "ReLU", "ReLU"]


@pytest.mark.parametrize(("post", "hidden"), [(1, ["Identity"] * 2), (2, ["Identity", "ReLU"]), (3, ["ReLU"] * 2)])
def test_vgg16_has_relu_behind_the_edges_linear_layers(post: int, hidden: list[str]) -> None:
    kinds = activations("vgg16", activation="identity", post=post)
    assert [kind for name, kind in kinds if name.startswith("classifier")] == hidden
    assert {kind for name, kind in kinds[2:] if name.startswith("features")} == {"Identity", "AvgPool2d"}


@pytest.mark.parametrize("options", [{}, {"pre": 3}, {"post": 3}, {"pre": 2, "post": 2}])
@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_identity_makes_the_cloud_part_affine(name: str, options: dict[str, int]) -> None:
    shared = {"width": 0.0625, "in_channels": 1, "num_classes": 5, "activation": "identity"}
    parts = partition(build(name, {**shared, **options}).eval().double(), **options)
    with torch.no_grad():
        x, y = parts.edge_first(torch.randn(2, 1, 40, 40).double()).split(1)
        between, ends = parts.cloud(0.3 * x + 0.7 * y), (parts.cloud(x), parts.cloud(y))
    torch.testing.assert_close(between, 0.3 * ends[0] + 0.7 * ends[1])
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_hidden_layer_before_the_last() -> None:
    plain = build("resnet18", {"width": 0.0625, "num_classes": 5}).state_dict()
    model = build("resnet18", {"width": 0.0625, "num_classes": 5, "head": 7}).eval()
    state = model.state_dict()
    assert state.keys() - plain.keys() == {"head.0.weight", "head.0.bias"}
    assert not plain.keys() - state.keys()
    assert (state["head.0.weight"].shape, state["fc.weight"].shape) == ((7, 32), (5, 7))
    inner = partition(model, post=1)
    with torch.no_grad():
        features = inner.cloud(inner.edge_first(torch.randn(4, 3, 33, 33)))
        hidden = (features @ state["head.0.weight"].T + state["head.0.bias"]).clamp(min=0)
        torch.testing.assert_close(inner.edge_last(features), hidden @ state["fc.weight"].T + state["fc.bias"])
    assert features.shape == (4, 32)


@pytest.mark.parametrize("size", [(24, 20), (33, 47), (8, 5)])
@pytest.mark.parametrize("pre", [1, 2, 3])
def test_wide_linear_is_a_matrix_in_the_cloud_and_bends_on_the_edge(size: tuple[int, int], pre: int) -> None:
    options = {"width": 0.0625, "in_channels": 1, "num_classes": 5, "image_size": size, "hidden": 7, "pre": pre}
    model = build("wide_linear", options).eval().double()
    parts, images = partition(model, pre), torch.randn(12, 1, *size).double()
    with torch.no_grad(), fo.MixKey.sample(12, 3, generator=torch.Generator().manual_seed(0)) as key:
        features = parts.edge_first(images)
        assert parts.cloud(features).shape == (12, 7, 1, 1)
        mixed = parts.edge_last(fo.group_unmix(parts.cloud(fo.group_mix(features, key)), key))
        torch.testing.assert_close(mixed, model(images))  # exact, whatever the weights
        assert not parts.cloud(torch.zeros_like(features)).any()
        opposite = parts.edge_last(-parts.cloud(features)) + model(images)
        assert (opposite - 2 * model.fc.bias).abs().max() > 1e-3  # the head is no linear function


def test_wide_linear_begins_with_blocks_of_resnet18() -> None:
    shared = {"width": 0.0625, "in_channels": 1, "num_classes": 5}
    wide = build("wide_linear", {**shared, "image_size": (24, 20), "pre": 3}).eval()
    resnet = build("resnet18", shared).eval()
    known = {name: weight for name, weight in resnet.state_dict().items() if not name.startswith("fc.")}
    missing, _ = wide.load_state_dict(known, strict=False)
    assert {name.split(".")[0] for name in missing} == {"matrix", "norm", "fc"}
    with torch.no_grad():
        x = torch.randn(2, 1, 24, 20)
        torch.testing.assert_close(partition(wide, 3).edge_first(x), partition(resnet, 3).edge_first(x))


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_only_the_slopes_are_new_with_prelu(name: str) -> None:
    plain, bent = build(name, {"width": 0.0625}), build(name, {"width": 0.0625, "activation": "prelu"})
    missing, unexpected = bent.load_state_dict(plain.state_dict(), strict=False)
    slopes = {f"{n}.weight" for n, module in bent.named_modules() if isinstance(module, nn.PReLU)}
    assert set(missing) == slopes
    assert not unexpected


def test_registry() -> None:
    assert {"resnet18", "vgg16", "wide_linear"} <= set(names())
    assert "protected" not in names()  # which is made around one of these
    with pytest.raises(ValueError, match="the model name 'vgg16' is taken"):
        register("vgg16")(nn.Identity)


def test_numbers_of_numpy_are_numbers() -> None:
    network = build("resnet18", {"num_classes": np.int64(3), "width": np.float32(0.0625), "pre": np.int32(2)})
    assert network.fc.out_features == 3


def test_wide_linear_says_whose_size_is_wrong() -> None:
    """Also where it is cut, as in `facemix cost` and `facemix train`."""
    model = build("wide_linear", {"width": 0.0625, "hidden": 8})
    rule = r"^wide_linear: image_size must be that of the images, got \(218, 178\) for others"
    with pytest.raises(ValueError, match=rule):
        model(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=rule):
        partition_cost(model, (3, 64, 64))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "alexnet",
            {},
            "build: name must be one of resnet18, vgg16, wide_linear, got 'alexnet'; for a model of your own import "
            "the module that registers it: --import MODULE",
        ),
        ("resnet18", {"depth": 3}, "build: options must suit resnet18, got {'depth': 3}"),
        ("resnet18", {"pre": 10}, "resnet18: pre must be between 1 and 9, got 10"),
        ("resnet18", {"post": 0}, "resnet18: post must be between 1 and 8, got 0"),
        ("resnet18", {"head": -1}, "resnet18: head must be a whole number that is not negative, got -1"),
        ("resnet18", {"head": 1.5}, "resnet18: head must be a whole number that is not negative, got 1.5"),
        ("resnet18", {"head": True}, "resnet18: head must be a whole number that is not negative, got True"),
        ("resnet18", {"width": True}, "resnet18: width must be a positive number, got True"),
        ("resnet18", {"patches": True}, "resnet18: patches must be a positive whole number, got True"),
        ("wide_linear", {"pre": 4}, "wide_linear: pre must be between 1 and 3, got 4"),
        ("wide_linear", {"post": 2}, "wide_linear: post must be between 1 and 1, got 2"),
        ("wide_linear", {"hidden": 0}, "wide_linear: hidden must be a positive whole number, got 0"),
        ("vgg16", {"pre": 0}, "vgg16: pre must be between 1 and 13, got 0"),
        ("vgg16", {"post": 15}, "vgg16: post must be between 1 and 14, got 15"),
        ("resnet18", {"width": -1}, "resnet18: width must be a positive number, got -1"),
        ("resnet18", {"width": math.inf}, "resnet18: width must be a positive number, got inf"),
        ("resnet18", {"width": "wide"}, "resnet18: width must be a positive number, got 'wide'"),
        ("resnet18", {"in_channels": 0}, "resnet18: in_channels must be a positive whole number, got 0"),
        ("resnet18", {"num_classes": 1.5}, "resnet18: num_classes must be a positive whole number, got 1.5"),
        ("resnet18", {"patches": 0}, "resnet18: patches must be a positive whole number, got 0"),
        ("resnet18", {"pre": "conv1"}, "resnet18: pre must be between 1 and 9, got 'conv1'"),
        ("vgg16", {"width": 0}, "vgg16: width must be a positive number, got 0"),
        ("vgg16", {"num_classes": -5}, "vgg16: num_classes must be a positive whole number, got -5"),
        ("wide_linear", {"width": math.nan}, "wide_linear: width must be a positive number, got nan"),
        ("wide_linear", {"in_channels": -1}, "wide_linear: in_channels must be a positive whole number, got -1"),
        ("wide_linear", {"image_size": [0, 5]}, "wide_linear: image_size must be a height and a width, got [0, 5]"),
        ("wide_linear", {"image_size": [5]}, "wide_linear: image_size must be a height and a width, got [5]"),
        ("resnet18", {"activation": "tanh"}, "activation must be one of ['identity', 'prelu', 'relu'], got 'tanh'"),
    ],
)
def test_refusals_say_what_came(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(name, options)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "wide_linear"])
def test_channels_last_is_a_layout_only(name: str) -> None:
    """As GPUs train: the same scores and gradients."""
    options = {"wide_linear": {"image_size": [64, 48]}, "vgg16": {"width": 0.0625}}.get(name, {"width": 0.0625})
    model = build(name, {"num_classes": 5, **options}).double().eval()
    x = torch.randn(4, 3, 64, 48, dtype=torch.float64)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=layout).zero_grad()
        scores = model(x.contiguous(memory_format=layout))
        scores.square().sum().backward()
        found.append([scores, *(parameter.grad.clone() for parameter in model.parameters())])
    torch.testing.assert_close(found[0], found[1])
