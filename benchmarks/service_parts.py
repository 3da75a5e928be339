"""What the parts of benchmarks/service.py share: files of a network, cloud processes, resident memory."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from facemix.export import export_cloud, export_edge
from facemix.models import build
from numpy.typing import NDArray
from torch import nn

HERE = Path(__file__).resolve().parent
GROUP = 8
MEAN, STD = 0.5, 0.25
MIB = 1024 * 1024
START_SECONDS, STOP_SECONDS = 120, 30


@dataclass(frozen=True)
class Network:
    """A ResNet-18 with random weights: images [channels, height, width] of so many classes.

    With "prelu", the activation of mixing-aware training, slopes are 1 here and batch norms have no offset: the cloud's
    part is linear, mixing changes nothing, and an answer is right if it is that of the network in one piece. With
    "relu" nobody can say what the answer to a mixture should be.
    """

    name: str
    image: tuple[int, int, int]
    width: float
    classes: int
    activation: str = "prelu"

    def build(self) -> nn.Module:
        """The network in one piece, the same each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build("resnet18", self._options).eval()

    def export(self, folder: Path) -> tuple[Path, Path]:
        """The files of cloud and edge."""
        model = self.build()
        cloud, edge = (folder / f"{self.name}-{side}.safetensors" for side in ("cloud", "edge"))
        channels = self.image[0]
        export_cloud(cloud, model, "resnet18", self._options, self.image, name=self.name)
        mean, std, calibration = [MEAN] * channels, [STD] * channels, self.images(4 * GROUP, seed=1)
        export_edge(
            edge, model, self.image, name=self.name, group_size=GROUP, mean=mean, std=std, calibration=calibration
        )
        return cloud, edge

    def images(self, count: int, seed: int = 0) -> NDArray[np.uint8]:
        """Noise, [N, H, W, C]."""
        channels, height, width = self.image
        return np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "num_classes": self.classes,
            "in_channels": self.image[0],
            "width": self.width,
            "activation": self.activation,
        }


#: The demo's network: 10.5 KiB up for a face, a millisecond of computing, so that the service itself weighs most.
FACES = Network("faces", (1, 56, 46), 0.25, 40)
#: By activation, the network that most people know: 784 KiB up for an image in float32.
RESNETS = {name: Network(f"resnet18-{name}", (3, 224, 224), 1.0, 1000, name) for name in ("prelu", "relu")}


@dataclass(frozen=True)
class Cloud:
    """A cloud process."""

    address: str
    process: psutil.Process

    @property
    def resident_bytes(self) -> int:
        """Of the process now, children included."""
        return resident_bytes(self.process)


@contextlib.contextmanager
def cloud(model: Path, *options: str) -> Iterator[Cloud]:
    """`facemix serve` on a free port, until the block ends.

    Raises:
        RuntimeError: if it ends instead of listening.
    """
    command = [sys.executable, "-m", "facemix", "serve", "--model", str(model), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            if not line:
                raise RuntimeError(f"{' '.join(command)} ended with exit status {process.wait()}")
            yield Cloud(line[-1], psutil.Process(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def resident_bytes(process: psutil.Process) -> int:
    """Resident memory of `process` and its children; what they share counts more than once."""
    return sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])


def run(script: str, *arguments: Any, seconds: float = 600) -> Any:
    """The JSON that a script of this folder prints, in a process of its own."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)
