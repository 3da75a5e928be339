"""The networks that the pipeline trains and splits, and a registry that rebuilds one from its name."""

from .protected import Protected
from .registry import build, build_bare, names, register
from .resnet import ResNet18
from .vgg import VGG16
from .wide_linear import WideLinear

__all__ = ["VGG16", "Protected", "ResNet18", "WideLinear", "build", "build_bare", "names", "register"]
