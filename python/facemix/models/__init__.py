"""The networks that the pipeline trains and splits, and a registry that rebuilds one from its name."""

from .registry import build, names, register
from .resnet import ResNet18
from .vgg import VGG16

__all__ = ["VGG16", "ResNet18", "build", "names", "register"]
