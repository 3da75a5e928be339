"""A network for a cloud that is linear: all non-linear layers are on the edge, before the mix and after the un-mix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .activations import activation_factory
from .checks import check_counts, check_cut, check_factor
from .registry import register
from .resnet import STEM_WIDTH, BasicBlock

__all__ = ["WideLinear"]

STEM_STRIDE = 4  # of the convolution and the pool after it, together


class _Flat(nn.Module):
    """[B, C, H, W] -> [B, values]. A layer, so that the check stays where the network around it is traced and cut."""

    def __init__(self, values: int, image_size: tuple[int, ...]) -> None:
        super().__init__()
        self.values, self.image_size = values, image_size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:].numel() != self.values:
            raise ValueError(f"wide_linear: image_size must be that of the images, got {self.image_size} for others")
        return torch.flatten(x, 1)


@register("wide_linear")
class WideLinear(nn.Module):
    """ResNet-18's first blocks, one matrix, ReLU, one more matrix: images [B, in_channels, H, W] -> scores
    [B, num_classes].

    What commutes with every mix is linear, and a stack of linear layers is one matrix. So the cloud has one, with many
    rows: it brings back `hidden` values of an image, which are un-mixed exactly, whatever the group size, and go
    through a ReLU only then. It has no bias, nor a norm, whose shift is one: mixed rows do not sum to one, so a shift
    would come back as noise. The edge's norm, after the un-mix, shifts as it likes.

    Args:
        num_classes: outputs of the last layer.
        in_channels: channels of the images (1 for grey).
        width: multiplies every channel count before the mix; 1.0 is ResNet-18's.
        image_size: (height, width) of the images.
        hidden: values that the cloud returns for each image.
        dropout: probability, of those.
        activation: of the cloud part, after its matrix; "identity" keeps it linear.
        pre, post: as `partition` counts. pre: 1 is the stem, 2 the stem and a residual block, 3 two of them. post: 1.

    Raises:
        ValueError: if an argument is out of range.
    """

    #: Names of the blocks that run on the edge before the mix (`partition(pre=...)`).
    pre_blocks = ("conv1", "layer1.0", "layer1.1")
    #: Names of the layers that the edge's last part may begin with (`partition(post=...)`).
    post_blocks = ("norm",)

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        image_size: Sequence[int] = (218, 178),
        hidden: int = 1024,
        dropout: float = 0.3,
        activation: str = "identity",
        pre: int = 1,
        post: int = 1,
    ) -> None:
        super().__init__()
        check_counts("wide_linear", num_classes=num_classes, in_channels=in_channels, hidden=hidden)
        check_factor("wide_linear", width=width)
        check_cut("wide_linear", pre=(pre, self.pre_blocks), post=(post, self.post_blocks))
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(f"wide_linear: image_size must be a height and a width, got {image_size}")
        channels, edge = max(1, round(STEM_WIDTH * width)), activation_factory("relu")
        height, breadth = (-(-side // STEM_STRIDE) for side in image_size)

        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = edge()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(*(BasicBlock(channels, channels, 1, edge) for _ in range(pre - 1)))
        self.flat = _Flat(channels * height * breadth, tuple(image_size))
        self.matrix = nn.Linear(self.flat.values, hidden, bias=False)
        self.activation = activation_factory(activation)()
        self.norm = nn.BatchNorm2d(hidden)
        self.bend = edge()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        x = self.activation(self.matrix(self.flat(x)))
        x = self.bend(self.norm(x[..., None, None]))  # as one pixel: several processes share norms of images only
        return self.fc(self.dropout(torch.flatten(x, 1)))
