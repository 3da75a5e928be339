"""Layers: MixConv2d where nn.Conv2d stood, UnmixLinear where nn.Linear stood; GroupMix and GroupUnmix alone."""

from __future__ import annotations

from typing import Any, Literal, Self, TypeGuard

import torch
from torch import Tensor, nn

from .absorbed import AbsorbedBatchNorm2d
from .keys import MixKey
from .ops import act_mix, conv_mix, group_mix, group_unmix, unmix_linear
from .ops.library import compute_dtype
from .pairing import Mixer, Unmixer
from .rules import bad_type, bad_value
from .spec import check_layer, is_plain, parse_activation, parse_pool


class MixConv2d(Mixer, nn.Conv2d):
    """``nn.Conv2d`` whose output leaves mixed and shuffled; with what follows it on the edge fused in.

    Takes the arguments of :class:`torch.nn.Conv2d`, its state dict too (with a norm's entries below ``norm.``, and a
    PReLU's below ``activation.``), and by keyword:

    Args:
        group_size: images a group, 2 to 64 (the paper's S_G).
        norm: a normalisation of the convolution's output, such as ``nn.BatchNorm2d(out_channels)``. In training it
            runs as it is (batch statistics and all); in eval a BatchNorm2d is folded into the convolution.
        activation: None, "relu", "leaky_relu", ("leaky_relu", slope), nn.ReLU, nn.LeakyReLU or nn.PReLU(1).
        pool: max-pool behind the activation: None, an int, (kernel, stride, padding), each an int or a pair, or
            nn.MaxPool2d.
        max_coeff: bounds the coefficients of the keys it samples, see :meth:`facemix_ops.MixKey.sample`.

    ``layer(x, key)`` mixes with your key. ``layer(x)`` draws a fresh one from the operating system's CSPRNG and hands
    it to the :class:`UnmixLinear` or :class:`GroupUnmix` that comes next, so that a model whose ``forward(x)`` knows
    nothing of keys works unchanged, in training and in eval. No key is ever part of the state dict.

    Shapes: x [B, C, H, W], B a multiple of ``group_size`` -> [B, out_channels, H', W'].

    Raises TypeError and ValueError, naming argument, rule and what came.
    """

    ndim = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        group_size: int,
        norm: nn.Module | None = None,
        activation: Any = None,
        pool: Any = None,
        max_coeff: float | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._init_mixer(group_size, max_coeff)
        if norm is not None and not isinstance(norm, nn.Module):
            bad_type("MixConv2d", "norm", "be an nn.Module such as nn.BatchNorm2d", type(norm).__name__)
        if (features := getattr(norm, "num_features", 0)) not in (0, out_channels):  # a lazy one has 0 until it runs
            bad_value("MixConv2d", "norm", f"be for out_channels = {out_channels}", f"one for {features}")
        parse_activation("MixConv2d", activation)
        parse_pool("MixConv2d", pool)
        self.norm, self.activation, self.pool = norm, activation, pool

    @classmethod
    def from_conv(
        cls,
        conv: nn.Conv2d,
        *,
        group_size: int,
        norm: nn.Module | None = None,
        activation: Any = None,
        pool: Any = None,
        max_coeff: float | None = None,
    ) -> Self:
        """A layer that shares ``conv``'s parameters, in its mode; ``norm`` stays in its own."""
        check_layer("MixConv2d.from_conv", "conv", conv, nn.Conv2d)
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, "meta", conv.weight.dtype,
            group_size=group_size, norm=norm, activation=activation, pool=pool, max_coeff=max_coeff,
        )  # fmt: skip
        layer.weight, layer.bias, layer.training = conv.weight, conv.bias, conv.training
        return layer

    def _mix(self, x: Tensor, key: MixKey) -> Tensor:
        norm = self.norm
        if self.groups > 1 or (norm is not None and not _folds(norm)):
            z = nn.Conv2d.forward(self, x)
            z = z if norm is None else _apply(norm, z)
            return act_mix(z, key, activation=self.activation, pool=self.pool)
        weight, bias = self.weight, self.bias
        padding: Any = self.padding
        if _folds(norm):
            weight, bias = _fold(weight, bias, norm)
        if self.padding_mode != "zeros":
            x = nn.functional.pad(x, self._reversed_padding_repeated_twice, self.padding_mode)
            padding = 0
        return conv_mix(
            x, weight, bias, key, stride=self.stride, padding=padding, dilation=self.dilation,
            activation=self.activation, pool=self.pool,
        )  # fmt: skip

    def extra_repr(self) -> str:
        fused = [f"{n}={v}" for n, v in (("activation", self.activation), ("pool", self.pool))
                 if v is not None and not isinstance(v, nn.Module)]  # fmt: skip
        return ", ".join([super().extra_repr(), f"group_size={self.group_size}", *fused])


class GroupMix(Mixer):
    """Mixes and shuffles what it is given: for an edge half that ends deeper than its first convolution.

    ``layer(x, key)`` or ``layer(x)``, as :class:`MixConv2d`. Shapes: x [B, ...] -> [B, ...].
    """

    def __init__(self, group_size: int, *, max_coeff: float | None = None) -> None:
        super().__init__()
        self._init_mixer(group_size, max_coeff)

    def _mix(self, x: Tensor, key: MixKey) -> Tensor:
        return group_mix(x, key)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}"


class UnmixLinear(Unmixer, nn.Linear):
    """``nn.Linear`` for rows that come back mixed: un-shuffles, un-mixes, multiplies.

    Takes the arguments of :class:`torch.nn.Linear` and its state dict. ``layer(y, key)`` un-mixes with your key;
    ``layer(y)`` takes the one that the mixing layer left in this forward pass, and zeroes it when no gradient will
    need it. Raises ValueError when there is none.

    A key that was left is for one layer: with several heads make them one UnmixLinear and split its result, or let a
    :class:`GroupUnmix` come before them, or pass the key to each.

    Shapes: y [B, ..., in_features] -> [B, ..., out_features], rows in the order of the images.
    """

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Self:
        """A layer that shares ``linear``'s parameters."""
        check_layer("UnmixLinear.from_linear", "linear", linear, nn.Linear)
        layer = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta", linear.weight.dtype)
        layer.weight, layer.bias, layer.training = linear.weight, linear.bias, linear.training
        return layer

    def _unmix(self, y: Tensor, key: MixKey) -> Tensor:
        return unmix_linear(y, key, self.weight, self.bias)


class GroupUnmix(Unmixer):
    """Un-shuffles and un-mixes what it is given: for an edge whose last part is not one linear layer.

    ``layer(y, key)`` or ``layer(y)``, as :class:`UnmixLinear`. Shapes: y [B, ...] -> [B, ...], rows in the order of the
    images.
    """

    def _unmix(self, y: Tensor, key: MixKey) -> Tensor:
        return group_unmix(y, key)


def _folds(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether the normalisation is a fixed affine map now: a BatchNorm2d in eval with running statistics.

    One with hooks is called, in eval as well, so that they run.
    """
    if not is_plain(norm, nn.BatchNorm2d) or norm.training or norm.running_mean is None:
        return False
    return not norm._forward_hooks and not norm._forward_pre_hooks


def _fold(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The convolution's weight and bias with an eval-mode BatchNorm2d behind it, which in 16 bits computes in 32."""
    assert norm.running_mean is not None  # see _folds
    assert norm.running_var is not None
    dtype = compute_dtype(weight.dtype)
    scale = torch.rsqrt(norm.running_var.to(dtype) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    mean = norm.running_mean.to(dtype)
    shift = -mean if bias is None else bias - mean
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
    return (weight * scale.reshape(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype)


def _apply(norm: nn.Module, z: Tensor) -> Tensor:
    return norm.absorbed(z) if isinstance(norm, AbsorbedBatchNorm2d) else norm(z)
