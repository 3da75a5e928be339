"""What may be fused behind a convolution: an activation and a max-pool, in all the forms users write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from .checks import as_pair
from .rules import MAX_WINDOW, bad_type, bad_value, short

M = TypeVar("M", bound=nn.Module)

NONE, RELU, LEAKY = 0, 1, 2


class Activation(NamedTuple):
    """z where it is positive, elsewhere ``slope`` times z: 1 for NONE, 0 for RELU, ``weight`` when it is trained."""

    kind: int = NONE
    slope: float = 1.0
    weight: Tensor | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """The activation in plain PyTorch, for the reference."""
        if self.kind == NONE:
            return z
        if self.kind == RELU:
            return torch.relu(z)
        if self.weight is not None:
            return nn.functional.prelu(z, self.weight.to(z.dtype).reshape(1))
        return nn.functional.leaky_relu(z, self.slope)


def is_plain(module: Any, kind: type[M]) -> TypeGuard[M]:
    """Whether a module computes what ``kind`` does.

    A subclass may have another forward; unless it says, by a class attribute ``fusable``, that nothing is lost where
    the work of ``kind`` is done in its place (a batch norm's: in eval).
    """
    return isinstance(module, kind) and (
        type(module).forward is kind.forward or getattr(type(module), "fusable", False)
    )


def check_layer(op: str, argument: str, layer: Any, kind: type[M]) -> M:
    """``layer``, which must be a ``kind`` itself, whose weight and bias are parameters that another layer can share."""
    for name in ("weight", "bias") if isinstance(layer, kind) else ():
        if not isinstance(getattr(layer, name), nn.Parameter | None):
            bad_value(op, argument, f"have a plain parameter as its {name}", "a computed one (weight_norm or the like)")
    if type(layer) is not kind:
        bad_type(op, argument, f"be an nn.{kind.__name__}, and no subclass", type(layer).__name__)
    return layer


def parse_activation(op: str, value: Any) -> Activation:
    """None, "relu", "leaky_relu", ("leaky_relu", slope), ("prelu", weight with one element), or such an nn.Module.

    Without match statements: torch.compile traces this, and before PyTorch 2.11 not those.
    """
    if value is None or is_plain(value, nn.Identity):
        return Activation()
    if is_plain(value, nn.ReLU):
        value = "relu"
    elif is_plain(value, nn.LeakyReLU):
        value = ("leaky_relu", value.negative_slope)
    elif is_plain(value, nn.PReLU):
        value = ("prelu", value.weight)
    if isinstance(value, str):
        if value == "relu":
            return Activation(RELU, 0.0)
        if value == "leaky_relu":
            return Activation(LEAKY, 0.01)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        name, slope = value
        if name == "leaky_relu" and isinstance(slope, (float, int)):
            return Activation(LEAKY, float(slope))
        if name == "prelu" and isinstance(slope, Tensor):
            if not slope.is_floating_point():
                bad_type(op, "activation", "have a floating-point slope", short(slope))
            if slope.numel() != 1:
                bad_value(op, "activation", "have one slope for all channels", f"a PReLU with {slope.numel()}")
            return Activation(LEAKY, 1.0, slope)
    bad_type(
        op,
        "activation",
        'be None, "relu", "leaky_relu", ("leaky_relu", slope), ("prelu", weight), nn.ReLU, nn.LeakyReLU or nn.PReLU '
        "(no subclass with a forward of its own)",
        repr(value) if isinstance(value, (str, tuple)) else type(value).__name__,
    )


def parse_pool(op: str, value: Any) -> list[int]:
    """Max-pool as [kh, kw, sh, sw, ph, pw]; [] for none.

    None, an int (a square kernel and its stride), (kernel, stride, padding), each an int or a pair, or an nn.MaxPool2d.
    Two numbers are refused: they could be a kernel, or a kernel and a stride.
    """
    if value is None or is_plain(value, nn.Identity):
        return []
    if is_plain(value, nn.MaxPool2d):
        if value.ceil_mode or value.return_indices or as_pair(op, "pool.dilation", value.dilation, 1) != [1, 1]:
            bad_value(op, "pool", "have no ceil_mode, dilation or return_indices", repr(value))
        value = (value.kernel_size, value.stride, value.padding)
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value, 0)
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        bad_type(
            op,
            "pool",
            "be None, an int, (kernel, stride, padding), each an int or a pair, or an nn.MaxPool2d (no subclass with a "
            "forward of its own)",
            repr(value),
        )
    kernel = as_pair(op, "pool kernel", value[0], 1)
    stride = as_pair(op, "pool stride", value[1], 1)
    padding = as_pair(op, "pool padding", value[2], 0)
    if kernel[0] * kernel[1] > MAX_WINDOW:
        bad_value(op, "pool kernel", f"have at most {MAX_WINDOW} elements", f"{kernel}")
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        bad_value(op, "pool padding", f"be at most half of the kernel {kernel}", f"{padding}")
    return [*kernel, *stride, *padding]


def needs_codes(kind: int, pool: list[int]) -> bool:
    """Whether the backward pass has to know which elements were taken."""
    return kind != NONE or bool(pool)


def convolved_size(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Height and width of the convolution of ``x``; not positive where the kernel does not fit."""
    return [(x.shape[2 + d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]


def pooled_size(op: str, size: Sequence[int], pool: list[int]) -> tuple[int, int]:
    """Height and width after the pool. Raises ValueError where nothing would be left."""
    height, width = size
    if not pool:
        return height, width
    kh, kw, sh, sw, ph, pw = pool
    h, w = (height + 2 * ph - kh) // sh + 1, (width + 2 * pw - kw) // sw + 1
    if h <= 0 or w <= 0:
        bad_value(op, "pool kernel", f"fit in the padded map of {[height + 2 * ph, width + 2 * pw]}", f"{[kh, kw]}")
    return h, w
