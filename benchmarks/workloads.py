"""What is timed: the first layers of known networks, and the ops alone. Groups of 8, float32 unless said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

GROUP_SIZE = 8
FLOAT = 4  # bytes
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
Pool = tuple[int, int, int]  # kernel, stride, padding


@dataclass(frozen=True)
class Convolution:
    """Images [batch, channels, height, width] through a convolution, ReLU, a max-pool, and the mix."""

    name: str
    batch: int
    channels: int
    height: int
    width: int
    out_channels: int
    kernel: int
    stride: int
    padding: int
    pool: Pool | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the convolution's result."""
        return window((self.height, self.width), (self.kernel, self.stride, self.padding))

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (self.batch, self.out_channels, *window(self.size, self.pool))

    @property
    def flop(self) -> int:
        """Multiplications and additions of the convolution and of the mix."""
        taps = self.channels * self.kernel**2
        return 2 * self.batch * self.out_channels * math.prod(self.size) * taps + mixing_flop(math.prod(self.out_shape))

    @property
    def images(self) -> int:
        """Bytes of the input."""
        return FLOAT * self.batch * self.channels * self.height * self.width

    @property
    def weights(self) -> int:
        """Bytes of weight and bias."""
        return FLOAT * self.out_channels * (self.channels * self.kernel**2 + 1)

    @property
    def read(self) -> int:
        """Bytes that have to be read."""
        return self.images + self.weights

    @property
    def written(self) -> int:
        """Bytes that have to be written."""
        return FLOAT * math.prod(self.out_shape)


@dataclass(frozen=True)
class Backward:
    """The gradients of a convolution's weight and bias from that of its mixed result."""

    forward: Convolution

    @property
    def name(self) -> str:
        return self.forward.name

    @property
    def flop(self) -> int:
        return self.forward.flop

    @property
    def read(self) -> int:
        return self.forward.images + self.forward.written

    @property
    def written(self) -> int:
        return self.forward.weights


@dataclass(frozen=True)
class Features:
    """[B, C, H, W] through an op without a convolution."""

    name: str
    shape: tuple[int, int, int, int]
    pool: Pool | None = None

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        return (*self.shape[:2], *window(self.shape[2:], self.pool))

    @property
    def flop(self) -> int:
        return mixing_flop(math.prod(self.out_shape))

    @property
    def read(self) -> int:
        return FLOAT * math.prod(self.shape)

    @property
    def written(self) -> int:
        return FLOAT * math.prod(self.out_shape)


@dataclass(frozen=True)
class Linear:
    """The cloud's reply [batch, inputs] un-mixed, and the last layer."""

    name: str
    batch: int
    inputs: int = 512
    outputs: int = 80

    @property
    def flop(self) -> int:
        """With the layer before the un-mixing: the cheaper order where outputs are fewer than inputs."""
        return 2 * self.batch * self.inputs * self.outputs + mixing_flop(self.batch * self.outputs)

    @property
    def read(self) -> int:
        return FLOAT * (self.batch * self.inputs + (self.inputs + 1) * self.outputs)

    @property
    def written(self) -> int:
        return FLOAT * self.batch * self.outputs


def mixing_flop(elements: int) -> int:
    """Of a mixed result with so many elements."""
    return 2 * GROUP_SIZE * elements


def window(size: tuple[int, int], shape: Pool | None) -> tuple[int, int]:
    """Height and width after a convolution or a pool."""
    kernel, stride, padding = shape or (1, 1, 0)
    return (size[0] + 2 * padding - kernel) // stride + 1, (size[1] + 2 * padding - kernel) // stride + 1


STEM = Convolution("resnet-stem", 32, 3, 218, 178, 64, kernel=7, stride=2, padding=3)
CONVOLUTIONS = [
    STEM,
    Convolution("resnet-stem-pool", 32, 3, 218, 178, 64, kernel=7, stride=2, padding=3, pool=(3, 2, 1)),
    Convolution("vgg-conv1", 32, 3, 224, 224, 64, kernel=3, stride=1, padding=1),
    Convolution("cifar-conv1", 256, 3, 32, 32, 64, kernel=3, stride=1, padding=1),
    Convolution("vgg-conv2", 16, 64, 112, 112, 64, kernel=3, stride=1, padding=1, pool=(2, 2, 0)),
]
BACKWARD = Backward(STEM)
MIXING = Features("256x64x56x56", (256, 64, 56, 56))
ACTIVATIONS = [
    Features("32x64x109x89", (32, 64, 109, 89)),
    Features("32x64x109x89-pool", (32, 64, 109, 89), pool=(3, 2, 1)),
]
LINEARS = [Linear(f"{batch}x512-80", batch) for batch in (32, 256, 4096)]
