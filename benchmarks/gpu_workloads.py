"""What is timed on a GPU: in bfloat16 and float32, channels_last, groups of 8; what matters most comes first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from workloads import FLOAT, Backward, Convolution, Features, Linear, mixing_flop

Work = Convolution | Features | Linear
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
POOL = (3, 2, 1)


@dataclass(frozen=True)
class LinearBackward:
    """The gradients of the reply, the weight and the bias of a last layer."""

    forward: Linear

    @property
    def name(self) -> str:
        return self.forward.name

    @property
    def flop(self) -> int:
        """Two products, and the mixing of the gradient."""
        work = self.forward
        return 4 * work.batch * work.inputs * work.outputs + mixing_flop(work.batch * work.outputs)

    @property
    def read(self) -> int:
        return self.forward.read + self.forward.written

    @property
    def written(self) -> int:
        work = self.forward
        return FLOAT * (work.batch * work.inputs + (work.inputs + 1) * work.outputs)


@dataclass(frozen=True)
class Job:
    """A workload in one dtype, forward or backward."""

    op: str  # as in the result file, such as "conv_mix backward"
    work: Work
    dtype: str
    backward: bool = False

    @property
    def key(self) -> str:
        return f"{self.op} {self.work.name} {self.dtype}"

    @property
    def counted(self) -> Work | Backward | LinearBackward:
        """What has the work's operations and bytes."""
        if not self.backward or isinstance(self.work, Features):
            return self.work
        return Backward(self.work) if isinstance(self.work, Convolution) else LinearBackward(self.work)

    @property
    def bytes(self) -> int:
        """Read and written, at least."""
        return (self.counted.read + self.counted.written) * DTYPES[self.dtype].itemsize // FLOAT

    @property
    def tf32(self) -> bool:
        """Whether float32 is multiplied in TF32: PyTorch's convolutions do unless told otherwise, its products do not.
        Behind a convolution the mix, which `conv_mix` makes of rounded values too, may in everybody's.
        """
        return isinstance(self.work, Convolution)

    def floor(self, roofline: dict[str, float]) -> float:
        """Seconds below which nobody gets, with the rates of this machine as measured (see gpu_race.roofline)."""
        rate = roofline["bfloat16" if self.dtype == "bfloat16" else "tf32" if self.tf32 else "float32"]
        return max(self.bytes / roofline["copy"], self.counted.flop / rate)


def stem(batch: int, height: int, width: int, pooled: bool) -> Convolution:
    """ResNet's first layer."""
    name = f"resnet-stem {batch}x{height}x{width}" + (" pool" if pooled else "")
    return Convolution(name, batch, 3, height, width, 64, 7, 2, 3, pool=POOL if pooled else None)


CONVOLUTIONS = [
    *(
        stem(batch, h, w, pooled)
        for batch in (256, 64)
        for h, w in ((224, 224), (218, 178))
        for pooled in (False, True)
    ),
    Convolution("vgg-conv1 64x224x224", 64, 3, 224, 224, 64, kernel=3, stride=1, padding=1),
    Convolution("cifar-conv1 1024x32x32", 1024, 3, 32, 32, 64, kernel=3, stride=1, padding=1),
]
MIXING = Features("256x64x112x112", (256, 64, 112, 112))
LINEARS = [Linear(f"{batch}x512-80", batch) for batch in (256, 16384)]
TRAINING_BATCH = 256

# The same kinds, tiny: to try the harness itself where there is no GPU.
TINY: tuple[list[Convolution], Features, list[Linear]] = (
    [Convolution("tiny", 16, 3, 20, 18, 5, kernel=3, stride=2, padding=1, pool=(2, 2, 0))],
    Features("tiny", (16, 3, 4, 5)),
    [Linear("tiny", 16, 24, 5)],
)


def jobs(convolutions: list[Convolution], mixing: Features, linears: list[Linear]) -> list[Job]:
    """All of them, what matters most first: forward in bfloat16, then in float32, then backward."""
    found = []
    for backward in (False, True):
        suffix = " backward" if backward else ""
        for dtype in DTYPES:
            found += [Job("group_unmix" if backward else "group_mix", mixing, dtype, backward)]
            found += [Job(f"unmix_linear{suffix}", work, dtype, backward) for work in linears]
            found += [Job(f"conv_mix{suffix}", work, dtype, backward) for work in convolutions]
    return found


JOBS, TINY_JOBS = jobs(CONVOLUTIONS, MIXING, LINEARS), jobs(*TINY)
