"""The competition in PyTorch: each op in the fewest and fastest calls that we found, for eager mode and torch.compile.

The modules take the key as what suits them: ``coeffs`` float32 [G, S, S] and an index of rows [B]. With ``buffers``,
which is where the result goes, they compute in memory that they keep as far as PyTorch lets them; without, as compiled
code and autograd want it, in memory of its own choice, which it keeps (kept_memory.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from workloads import Convolution


def compiled(module: nn.Module, mode: str = "max-autotune") -> Callable[..., Tensor]:
    """The strongest setting of torch.compile, on the number of threads that is set at its first call."""
    torch._inductor.config.freezing = True  # weights become constants of the code, packed once
    torch._functorch.config.donated_buffer = False  # a benchmark walks one graph backwards many times
    return torch.compile(module.eval(), mode=mode, dynamic=False)


class Into(nn.Module):
    """``module`` into a buffer, which the compiler writes in its last loop rather than in a copy."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, out: Tensor, *args: Tensor) -> Tensor:
        return out.copy_(self.module(*args))


class Mix(nn.Module):
    """``y[b] = mixed[index[b]]`` with ``mixed = coeffs @ x``; [B, n], one batched product and one row shuffle."""

    def __init__(self, buffers: Tensor | None = None) -> None:
        super().__init__()
        self.out = buffers
        self.mixed = None if buffers is None else torch.empty_like(buffers)

    def forward(self, x: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        grouped = x.view(*coeffs.shape[:2], -1)
        mixed = torch.bmm(coeffs, grouped, out=None if self.mixed is None else self.mixed.view_as(grouped))
        return torch.index_select(mixed.view_as(x), 0, index, out=self.out)


class Unmix(nn.Module):
    """``coeffs^T @ y[index]``; [B, n]."""

    def __init__(self, buffers: Tensor | None = None) -> None:
        super().__init__()
        self.out = buffers
        self.ordered = None if buffers is None else torch.empty_like(buffers)

    def forward(self, y: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        ordered = torch.index_select(y, 0, index, out=self.ordered).view(*coeffs.shape[:2], -1)
        out = None if self.out is None else self.out.view_as(ordered)
        return torch.bmm(coeffs.transpose(1, 2), ordered, out=out).view_as(y)


class ActMix(nn.Module):
    """ReLU, max-pool, mix."""

    def __init__(self, pool: tuple[int, int, int] | None, buffers: Tensor | None = None) -> None:
        super().__init__()
        self.pool, self.activation = pool, torch.relu
        self.mix = Mix(None if buffers is None else rows(buffers))

    def forward(self, x: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        z = self.activation(x)
        z = F.max_pool2d(z, *self.pool) if self.pool else z
        y = self.mix(rows(z), coeffs, index)
        b, c, h, w = z.shape
        return y.view(b, c, h, w) if z.is_contiguous() else y.view(b, h, w, c).permute(0, 3, 1, 2)


class ConvMix(ActMix):
    """Convolution, ReLU in place, max-pool, mix."""

    def __init__(self, work: Convolution, weight: Tensor, bias: Tensor, buffers: Tensor | None = None) -> None:
        super().__init__(work.pool, buffers)
        self.stride, self.padding, self.activation = work.stride, work.padding, torch.relu_
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        return super().forward(F.conv2d(x, self.weight, self.bias, self.stride, self.padding), coeffs, index)


class UnmixLinear(nn.Module):
    """Un-shuffle, un-mix, linear, in this order."""

    def __init__(self, weight: Tensor, bias: Tensor, buffers: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias, self.out = nn.Parameter(weight), nn.Parameter(bias), buffers
        self.unmix = Unmix(None if buffers is None else buffers.new_empty(len(buffers), weight.shape[1]))

    def forward(self, y: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.unmix(y, coeffs, index), self.weight.T, out=self.out)


class LinearUnmix(nn.Module):
    """The same with the linear part of the layer first, while the un-mixing is linear too: fewer columns to un-mix."""

    def __init__(self, weight: Tensor, bias: Tensor, buffers: Tensor | None = None) -> None:
        super().__init__()
        self.weight, self.bias, self.out = nn.Parameter(weight), nn.Parameter(bias), buffers
        self.product = None if buffers is None else torch.empty_like(buffers)
        self.ordered = None if buffers is None else torch.empty_like(buffers)

    def forward(self, y: Tensor, coeffs: Tensor, index: Tensor) -> Tensor:
        product = torch.mm(y, self.weight.T, out=self.product)
        ordered = torch.index_select(product, 0, index, out=self.ordered).view(*coeffs.shape[:2], -1)
        out = None if self.out is None else self.out.view_as(ordered)
        return torch.baddbmm(self.bias, coeffs.transpose(1, 2), ordered, out=out).view_as(product)


def rows(x: Tensor) -> Tensor:
    """``x`` [B, C, H, W], NCHW or NHWC, as [B, n] in the order of its memory."""
    return (x if x.is_contiguous() else x.permute(0, 2, 3, 1)).view(x.shape[0], -1)
