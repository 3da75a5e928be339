"""ResNet-18 (He et al. 2016) whose state-dict names are torchvision's.

Differences from torchvision's, none of them visible in the names of the weights: any number of input
channels, any width, adaptive pooling at any resolution, and an activation of choice in the part that the
cloud runs. The one addition, if it is asked for, is a hidden layer called `head`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .activations import activation_factory
from .checks import check_counts, check_cut, check_factor
from .patches import Patches, PatchMean
from .registry import register

__all__ = ["BasicBlock", "ResNet18"]

STEM_WIDTH = 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection: [B, Cin, H, W] -> [B, Cout, H/stride, W/stride]."""

    def __init__(self, in_channels: int, channels: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        # Two modules, not one called twice: a PReLU has a slope of its own.
        self.relu1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = activation()
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + skip)


def _stage(in_channels: int, channels: int, stride: int, activations: list[Callable[[], nn.Module]]) -> nn.Sequential:
    """A block for each of `activations`; the first one strides and widens."""
    return nn.Sequential(
        *(
            BasicBlock(channels if n else in_channels, channels, 1 if n else stride, activation)
            for n, activation in enumerate(activations)
        )
    )


@register("resnet18")
class ResNet18(nn.Module):
    """ResNet-18: images [B, in_channels, H, W] -> scores [B, num_classes].

    Args:
        num_classes: outputs of the last layer.
        in_channels: channels of the images (1 for grey).
        width: multiplies every channel count; 1.0 is the published network, with 64 channels in the stem.
        activation: of the cloud part, "relu", "prelu" or "identity". The edge's parts always have ReLU: what comes
            before the mix or after the un-mix may be as non-linear as it likes.
        pre, post: what counts as the edge's first and last part for `activation`, as `partition` counts: pre 1 is
            the stem, 2 the stem and a residual block...; post 1 is the layers after the average pool, 2 the last
            residual block, too...
        head: units of a hidden layer, with ReLU, between the average pool and `fc`; 0: none.
        patches: a side of what the stem gives is cut into so many parts. Each of the patches is a row of its own from
            there on, until the average pool's results are averaged over the patches. 1: none; more: with pre 1 only.

    Attributes:
        rows_per_image: patches in an image.

    Raises:
        ValueError: if an argument is out of range.
    """

    #: Names of the blocks that may run on the edge, in order (`partition(pre=...)`).
    pre_blocks = (
        "conv1",
        "layer1.0",
        "layer1.1",
        "layer2.0",
        "layer2.1",
        "layer3.0",
        "layer3.1",
        "layer4.0",
        "layer4.1",
    )
    #: Names of the layers that the edge's last part may begin with, counted from the end
    #: (`partition(post=...)`). With a hidden layer the first is "head".
    post_blocks: tuple[str, ...] = ("fc", *reversed(pre_blocks[2:]))

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        activation: str = "relu",
        pre: int = 1,
        post: int = 1,
        head: int = 0,
        patches: int = 1,
    ) -> None:
        super().__init__()
        check_counts("resnet18", num_classes=num_classes, in_channels=in_channels, patches=patches)
        check_counts("resnet18", least=0, head=head)
        check_factor("resnet18", width=width)
        check_cut("resnet18", pre=(pre, self.pre_blocks), post=(post, self.post_blocks))
        if patches > 1 and pre > 1:
            raise ValueError(f"resnet18: patches must be 1 where pre is more, got {patches} and {pre}")
        channels = max(1, round(STEM_WIDTH * width))
        edge, cloud = activation_factory("relu"), activation_factory(activation)
        on_edge = {*self.pre_blocks[:pre], *self.post_blocks[:post]}
        of_block = [edge if name in on_edge else cloud for name in self.pre_blocks[1:]]

        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = edge()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(channels, channels, 1, of_block[:2])
        self.layer2 = _stage(channels, 2 * channels, 2, of_block[2:4])
        self.layer3 = _stage(2 * channels, 4 * channels, 2, of_block[4:6])
        self.layer4 = _stage(4 * channels, 8 * channels, 2, of_block[6:])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.head: nn.Sequential | None = None
        if head:
            self.head = nn.Sequential(nn.Linear(8 * channels, head), edge())
            self.post_blocks = ("head", *self.post_blocks[1:])
        self.rows_per_image = patches**2
        self.cut: Patches | None = None
        self.join: PatchMean | None = None
        if patches > 1:
            self.cut, self.join = Patches(patches), PatchMean(patches)
            self.post_blocks = ("join", *self.post_blocks[1:])
        self.fc = nn.Linear(head or 8 * channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = x if self.cut is None else self.cut(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = torch.flatten(self.avgpool(x), 1)
        x = x if self.join is None else self.join(x)
        return self.fc(x if self.head is None else self.head(x))
