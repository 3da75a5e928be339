"""A collapsed network as one ONNX model for the edge: photographs in, scores out, and no cloud."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from .atomic import atomic_path
from .errors import FacemixError
from .export_onnx import TOLERANCE, converted

__all__ = ["export_collapsed"]

CHECKED_ROWS = (1, 3)


class OfPixels(nn.Module):
    """A network behind pixels: uint8 [B, H, W, C] -> (pixels / 255 - mean) / std [B, C, H, W] -> scores."""

    factor: Tensor
    offset: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("factor", 1 / (255 * torch.tensor(std)))
        self.register_buffer("offset", -torch.tensor(mean) / torch.tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images.float() * self.factor + self.offset).movedim(3, 1))


def export_collapsed(
    path: str | os.PathLike[str],
    network: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write a network that takes images [B, C, H, W], such as `Collapse.network`, to an ONNX file, and compare it with
    PyTorch on random images.

    Its input is images uint8 [B, H, W, C], its output scores float32 [B, classes].

    Args:
        path: an .onnx file.
        network: in eval mode, on the CPU.
        image_shape: (channels, height, width).
        mean, std: of each channel, of pixels from 0 to 1: the network takes (pixel / 255 - mean) / std.

    Raises:
        FacemixError: if PyTorch cannot convert the network, or the model answers otherwise.
    """
    channels, height, width = image_shape
    model = OfPixels(network, mean, std).eval()
    generator = np.random.default_rng(0)
    pixels = [generator.integers(0, 256, (rows, height, width, channels), np.uint8) for rows in CHECKED_ROWS]
    proto = converted(model, [torch.from_numpy(pixels[-1])], ["images"], "scores", what="the network")
    data = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for images in pixels:
        with torch.inference_mode():
            expected = model(torch.from_numpy(images)).numpy()
        (got,) = session.run(["scores"], {"images": images})
        off = float(np.abs(got - expected).max() / np.abs(expected).max())
        if not off <= TOLERANCE:  # nor is NaN
            raise FacemixError(
                f"export: the ONNX model must answer as PyTorch does, within {TOLERANCE:g} of the largest score, got "
                f"{off:.2g} for {len(images)} images"
            )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
