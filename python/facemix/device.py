"""Where PyTorch computes."""

from __future__ import annotations

import torch

__all__ = ["best_device", "fastest_layout"]


def best_device() -> torch.device:
    """A CUDA or ROCm device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fastest_layout(device: torch.device) -> torch.memory_format:
    """How images and weights should lie for convolutions there: on a GPU channels last, as tensor cores take them."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
