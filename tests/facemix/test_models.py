"""The networks: sizes, names of weights, options, and the registry."""

import re

import pytest
import torch
from facemix.models import build, names, register
from torch import nn


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build(name, options)


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


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_only_the_slopes_are_new_with_prelu(name: str) -> None:
    plain, bent = build(name, {"width": 0.0625}), build(name, {"width": 0.0625, "activation": "prelu"})
    missing, unexpected = bent.load_state_dict(plain.state_dict(), strict=False)
    slopes = {f"{n}.weight" for n, module in bent.named_modules() if isinstance(module, nn.PReLU)}
    assert set(missing) == slopes
    assert not unexpected


def test_registry() -> None:
    assert {"resnet18", "vgg16"} <= set(names())
    with pytest.raises(ValueError, match="the model name 'vgg16' is taken"):
        register("vgg16")(nn.Identity)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alexnet", {}, "build: name must be one of ['resnet18', 'vgg16'], got 'alexnet'"),
        ("resnet18", {"depth": 3}, "build: options must suit resnet18, got {'depth': 3}"),
        ("resnet18", {"pre": 10}, "resnet18: pre must be between 1 and 9, got 10"),
        ("vgg16", {"pre": 0}, "vgg16: pre must be between 1 and 13, got 0"),
        ("resnet18", {"activation": "tanh"}, "activation must be one of ['prelu', 'relu'], got 'tanh'"),
    ],
)
def test_refusals_say_what_came(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(name, options)
