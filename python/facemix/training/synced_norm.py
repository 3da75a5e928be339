"""Batch norm over the images of all processes, on any device. PyTorch's own needs a GPU, and is no BatchNorm2d, which
the layers that mix could fold."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["SyncedBatchNorm2d", "synced"]


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics in training are of the batches of all processes, which must be equally long:
    so that several processes train as one does, to rounding. Same state dict.
    """

    fusable = True  # in eval it is an nn.BatchNorm2d, which MixConv2d may fold

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        processes = dist.get_world_size()
        values = x if x.dtype == torch.float64 else x.float()
        mean = _Sum.apply(values.mean((0, 2, 3))) / processes
        centred = values - mean.view(-1, 1, 1)
        var = _Sum.apply((centred * centred).mean((0, 2, 3))) / processes
        self._keep(mean.detach(), var.detach(), processes * x.numel() // x.shape[1])
        scale = torch.rsqrt(var + self.eps) * self.weight
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)

    def _keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the running statistics, as nn.BatchNorm2d does: the variance without bias."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), momentum)


class _Sum(torch.autograd.Function):
    """The sum over the processes. Its gradient is the sum of theirs: each has a loss that depends on it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def synced(network: nn.Module) -> nn.Module:
    """Let every `nn.BatchNorm2d` of `network` be a `SyncedBatchNorm2d`, in place; returns it."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d
    return network
