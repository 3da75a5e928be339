"""Small models to convert: a ResNet, a VGG, a network that is linear behind its stem, and oddities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """A basic residual block; its control flow keeps tracers out."""

    def __init__(self, c: int, stride: int = 1, relu: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c)
        self.relu = relu or nn.ReLU()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return y + x[..., :: self.stride, :: self.stride]


class Resnet(nn.Module):
    """torchvision's names, a few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(8), Block(8, 2))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))


class Vgg(nn.Module):
    """features and classifier, as Sequentials."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(True),
            nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(3)
        self.classifier = nn.Sequential(nn.Linear(54, 8), nn.ReLU(True), nn.Dropout(), nn.Linear(8, 8), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(x.view(x.size(0), -1))


class LinearBehind(nn.Module):
    """A stem of any modules, then only what mixing leaves as it is."""

    def __init__(self, *stem: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *stem)
        self.middle = nn.Conv2d(6, 8, 3, bias=False)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.stem(x)).mean((2, 3)))


def linear_behind(*stem: nn.Module) -> LinearBehind:
    """A network whose cloud part is linear and without biases."""
    return LinearBehind(*stem)


class NormAct(nn.Module):
    """A block of the user's own that begins with what belongs before the mix."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(c), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class AlexLike(nn.Module):
    """conv1, something odd named by ``kind``, fc."""

    def __init__(self, kind: str, *extra: nn.Module) -> None:
        super().__init__()
        self.kind = kind
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 4, 1, bias=False)
        self.extra = nn.Sequential(*extra) if len(extra) > 1 else (extra[0] if extra else nn.Identity())
        self.fc = nn.Linear(4, 5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        z = self.conv1(x)
        side = None
        match self.kind:
            case "extra":
                z = self.extra(z)
            case "relu_extra":
                z = self.extra(self.relu(z))
            case "functional":
                z = F.relu(z)
            case "method":
                z = z.relu_()
            case "functional_pool":
                z = F.max_pool2d(self.relu(z), 2)
            case "clamp":
                z = z.clamp(min=0)
            case "maximum":
                z = torch.maximum(z, torch.zeros(()))
            case "product":
                z = z * z
            case "softmax":
                z = F.softmax(z, 1)
            case "dropout_relu":
                z = F.relu(F.dropout(z, 0.1, self.training))
            case "bn_after_relu":
                z = self.bn(self.relu(z))
            case "pool_then_relu":
                z = self.relu(self.pool(z))
            case "relu_twice":
                z = self.relu(self.conv2(self.relu(z)))
            case "conv_twice":
                z = self.conv1(z[:, :3])
            case "skip":
                z = self.relu(z) + z
            case "residual":
                z = self.relu(z)
                z = z + self.conv2(z)
            case "bypass":
                z = self.relu(z) + x.mean()
            case "input_out":
                z, side = self.relu(z), x.mean()
            case "side_output":
                z = self.relu(z)
                side = self.head(z.mean((2, 3)))
            case "branches":
                if z.sum() > 0:
                    z = -z
        out = self.fc(z.mean((2, 3)))
        return out if side is None else (out, side)
