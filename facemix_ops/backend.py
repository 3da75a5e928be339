"""Which implementation an op runs on, and why. One function both selects and explains.

FACEMIX_BACKEND=native|triton|reference forces one; it is an error where that one cannot run. It counts as it was when
the ops were registered, which is when this package's first op was used.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from dataclasses import dataclass

import torch

from .rules import bad_type, bad_value

BACKENDS = ("native", "triton", "reference")
TRITON_DEVICES = ("cuda", "xpu")  # ROCm is "cuda" to PyTorch
SAMPLERS = ("sample_orthogonal", "sample_permutation")  # without a kernel, the CPU draws for every device
CPU_ONLY = ("conv_mix_vjp",)  # elsewhere made of other ops
WISH = os.environ.get("FACEMIX_BACKEND")
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Choice:
    """A backend ("cpu" where a key is drawn for another device), and the reason for it in words."""

    backend: str
    reason: str
    slow: bool = False


def select(op: str, device: str) -> Choice:
    """The backend of ``op`` on a device type such as "cpu" or "cuda".

    Raises ValueError for a FACEMIX_BACKEND that does not exist, RuntimeError for one that cannot serve the device.
    """
    if WISH and WISH not in BACKENDS:
        raise ValueError(f"FACEMIX_BACKEND must be one of {', '.join(BACKENDS)}, got {WISH!r}")
    from .native import C

    on_cuda = device == "cuda" and not torch.version.hip and op in C.cuda_ops.split()
    if op in SAMPLERS and (not on_cuda or WISH in ("reference", "triton")):
        return Choice("cpu", "drawn on the CPU")
    if op in CPU_ONLY and (device != "cpu" or WISH == "triton"):
        return Choice("reference", "act_mix_vjp, then PyTorch's convolution")
    if WISH == "reference":
        return Choice("reference", "FACEMIX_BACKEND=reference")
    if WISH == "triton":
        return _forced_triton(op, device)
    if on_cuda:
        return Choice("native", f"CUDA kernels, {C.cuda_architectures}")
    if device == "cpu":
        return Choice("native", f"CPU kernels, {C.capability()}")
    if WISH == "native":
        raise RuntimeError(f"{op}: FACEMIX_BACKEND=native, but there is no native kernel for {device} tensors")
    missing = f"no native kernel for {device} tensors in this build"
    if device not in TRITON_DEVICES:
        return Choice("reference", missing, slow=True)
    if importlib.util.find_spec("triton") is None:
        return Choice("reference", f"{missing}, and no Triton: pip install triton", slow=True)
    return Choice("triton", f"Triton kernels; {missing}")


def _forced_triton(op: str, device: str) -> Choice:
    if importlib.util.find_spec("triton") is None:
        raise RuntimeError(f"{op}: FACEMIX_BACKEND=triton, but Triton is not installed: pip install triton")
    if device in TRITON_DEVICES:
        return Choice("triton", "FACEMIX_BACKEND=triton")
    if device != "cpu":
        raise RuntimeError(f"{op}: FACEMIX_BACKEND=triton, but there is no Triton kernel for {device} tensors")
    if os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            f"{op}: FACEMIX_BACKEND=triton, but Triton runs on cpu tensors only in its interpreter: TRITON_INTERPRET=1 "
            "(to look for errors in float32: its products of bfloat16 are wrong)"
        )
    return Choice("triton", "FACEMIX_BACKEND=triton, interpreted")


def explain(op: str, x: torch.Tensor) -> str:
    """Says which implementation ``op`` runs on for a tensor like ``x``, and why.

    >>> print(facemix_ops.explain("conv_mix", torch.empty(8, 3, 32, 32)))
    conv_mix on cpu: native (CPU kernels, avx512)

    Raises ValueError for an op that there is not, TypeError for anything but a tensor.
    """
    from .ops.library import REGISTERED

    if op not in REGISTERED:
        bad_value("explain", "op", f"be one of {', '.join(REGISTERED)}", op)
    if not isinstance(x, torch.Tensor):
        bad_type("explain", "x", "be a Tensor", type(x).__name__)
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
