"""Which implementation an op runs on, and why. One function both selects and explains.

FACEMIX_BACKEND=native|reference forces one; native is an error where there is no native kernel.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import torch

BACKENDS = ("native", "reference")
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Choice:
    """A backend, and the reason for it in words."""

    backend: str
    reason: str
    slow: bool = False


def select(op: str, device: str) -> Choice:
    """The backend of ``op`` on a device type such as "cpu" or "cuda".

    Raises ValueError for a FACEMIX_BACKEND that does not exist, RuntimeError for one that cannot serve the device.
    """
    wish = os.environ.get("FACEMIX_BACKEND")
    if wish and wish not in BACKENDS:
        raise ValueError(f"FACEMIX_BACKEND must be one of {', '.join(BACKENDS)}, got {wish!r}")
    if wish == "reference":
        return Choice("reference", "FACEMIX_BACKEND=reference")
    from .native import C

    if device == "cuda" and op in C.cuda_ops.split():
        return Choice("native", f"CUDA kernels, {C.cuda_architectures}")
    if device == "cpu":
        return Choice("native", f"CPU kernels, {C.capability()}")
    if wish == "native":
        raise RuntimeError(f"{op}: FACEMIX_BACKEND=native, but there is no native kernel for {device} tensors")
    return Choice("reference", f"no native kernel for {device} tensors in this version", slow=True)


def explain(op: str, x: torch.Tensor) -> str:
    """Says which implementation ``op`` runs on for a tensor like ``x``, and why.

    >>> print(facemix_ops.explain("conv_mix", torch.empty(8, 3, 32, 32)))
    conv_mix on cpu: native (CPU kernels, avx512)
    """
    choice = select(op, x.device.type)
    return f"{op} on {x.device.type}: {choice.backend} ({choice.reason})"


def warn_if_slow(op: str, device: str) -> None:
    """Warns, once for an op and device, when the reference stands in for a kernel that is missing."""
    choice = select(op, device)
    if choice.slow and (op, device) not in _warned:
        _warned.add((op, device))
        warnings.warn(
            f"{op}: {choice.reason}; running the plain-PyTorch reference, which is correct but slow. "
            "Move the edge half to the CPU for the fused kernels.",
            stacklevel=3,
        )
