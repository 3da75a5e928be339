"""Where PyTorch computes."""

from __future__ import annotations

import torch

__all__ = ["best_device"]


def best_device() -> torch.device:
    """A CUDA or ROCm device, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
