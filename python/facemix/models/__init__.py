"""The networks that the pipeline trains and splits, and a registry that rebuilds one from its name."""

from .registry import build, names, register
from .resnet import ResNet18
from .vgg import VGG16
from .wide_linear import WideLinear

__all__ = ["VGG16", "ResNet18", "WideLinear", "build", "names", "register"]
