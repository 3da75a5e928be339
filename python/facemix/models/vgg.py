"""VGG-16 (Simonyan and Zisserman 2015) whose state-dict names are torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .activations import activation_factory
from .checks import check_counts, check_cut, check_factor
from .registry import register

__all__ = ["VGG16"]

# Channels of each convolution at width 1; 0 stands for a 2x2 max-pool.
LAYOUT = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
HIDDEN = 4096
HEAD_SIZE = 7  # the classifier sees 7x7 features, whatever the resolution


def _block_names() -> tuple[str, ...]:
    """Names of the convolutions in `features`: a convolution takes two places (itself, its activation), a
    pool one.
    """
    names, place = [], 0
    for channels in LAYOUT:
        if channels:
            names.append(f"features.{place}")
        place += 2 if channels else 1
    return tuple(names)


@register("vgg16")
class VGG16(nn.Module):
    """VGG-16: images [B, in_channels, H, W] with H, W >= 32 -> scores [B, num_classes].

    Args:
        num_classes: outputs of the last layer.
        in_channels: channels of the images (1 for grey).
        width: multiplies every channel count, and that of the hidden linear layers; 1.0 is the published
            network.
        activation: of the cloud part, "relu", "prelu" or "identity"; the edge's parts always have ReLU. With
            "identity" the cloud part's max-pools are average pools, so that all of it is linear.
        pre, post: what counts as the edge's first and last part, as `partition` counts: pre convolutions, each with
            the activation and pool that follow, and post layers, first the linear ones, from the end.
        dropout: probability in the classifier.

    Raises:
        ValueError: if an argument is out of range.
    """

    pre_blocks = _block_names()
    post_blocks = ("classifier.6", "classifier.3", "classifier.0", *reversed(pre_blocks[2:]))

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        activation: str = "relu",
        pre: int = 1,
        post: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts("vgg16", num_classes=num_classes, in_channels=in_channels)
        check_factor("vgg16", width=width)
        check_cut("vgg16", pre=(pre, self.pre_blocks), post=(post, self.post_blocks))
        edge, cloud = activation_factory("relu"), activation_factory(activation)
        on_edge = {*self.pre_blocks[:pre], *self.post_blocks[:post]}

        layers: list[nn.Module] = []
        previous, here = in_channels, True
        for base in LAYOUT:
            if base == 0:
                linear = activation == "identity" and not here
                layers.append((nn.AvgPool2d if linear else nn.MaxPool2d)(2, stride=2))
                continue
            channels, here = max(1, round(base * width)), f"features.{len(layers)}" in on_edge
            layers += [nn.Conv2d(previous, channels, 3, padding=1), edge() if here else cloud()]
            previous = channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(HEAD_SIZE)
        hidden = max(1, round(HIDDEN * width))
        self.classifier = nn.Sequential(
            nn.Linear(previous * HEAD_SIZE * HEAD_SIZE, hidden),
            edge() if "classifier.0" in on_edge else cloud(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            edge() if "classifier.3" in on_edge else cloud(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
