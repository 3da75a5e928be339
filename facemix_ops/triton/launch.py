"""What the launchers share: the launch itself, and what kernels have to know at compile time."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from .tiles import power_of_two


def launch(kernel: Any, programs: int, *args: Any, **options: Any) -> None:
    """Starts ``programs`` programs on the current device, where ``args`` lie, on its current stream.

    Kernels number their programs along one axis: it has room for 2^31 - 1, the others for 65535.
    """
    if programs == 0:
        return
    kernel[(programs,)](*args, enable_fp_fusion=True, **options)


def reach(x: Tensor) -> int:
    """How far the last element of ``x`` lies behind the first, in elements."""
    return sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))


def constants(coeffs: Tensor, dtype: torch.dtype, extent: int) -> dict[str, Any]:
    """S, the padded S2, the type of sums, and the type of offsets within an image of ``extent`` elements."""
    size = coeffs.shape[1]
    return {
        "S": size,
        "S2": power_of_two(size),
        "T": tl.float64 if dtype == torch.float64 else tl.float32,
        "INDEX": tl.int32 if extent < 2**31 - 2**16 else tl.int64,
    }


def precision(x: Tensor, backend: Any) -> str:
    """How tl.dot multiplies: float32 as it is, unless PyTorch's ``backend`` (its convolutions, its products) is set to
    TF32 on CUDA."""
    allowed = x.is_cuda and x.dtype == torch.float32 and torch.version.hip is None
    return "tf32" if allowed and backend.fp32_precision == "tf32" else "ieee"


def warpgroups(x: Tensor) -> bool:
    """Whether tl.dot is a product of four warps together, each of all columns (``wgmma``)."""
    return x.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(x.device)[0] == 9


def parts(coeffs: Tensor, dtype: torch.dtype) -> int:
    """Of how many parts a coefficient is where tl.dot multiplies ``dtype`` by it: two where one is more than 16 bits
    hold, or where a row of the key, of 8 images, is shorter than the 16 that tl.dot takes at least."""
    return 2 if dtype.itemsize == 2 or coeffs.shape[1] <= 8 else 1
