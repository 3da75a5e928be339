"""Layers: MixConv2d where nn.Conv2d stood, UnmixLinear where nn.Linear stood, and GroupMix for the mix alone."""

from __future__ import annotations

import threading
from typing import Any, Literal, Self, TypeGuard

import torch
from torch import Tensor, nn

from .absorbed import Absorbed
from .keys import MixKey, check_group_size
from .ops import act_mix, conv_mix, group_mix, unmix_linear
from .rules import bad_type, bad_value, check_max_coeff
from .spec import is_plain, parse_activation, parse_pool


class KeyBox:
    """What holds the key in a :class:`KeySlot`."""

    key: MixKey | None = None


class KeySlot(threading.local):
    """Hands the key of one forward pass from the layer that mixes to the layer that un-mixes, a box a thread.

    It is not part of a model: it is neither saved nor copied with it (a copied pair shares a new, empty slot).
    """

    def __init__(self) -> None:
        # A graph of torch.compile sets attributes past threading.local: an attribute of the slot itself would not be
        # this thread's.
        self.box = KeyBox()

    def __deepcopy__(self, memo: dict[int, Any]) -> KeySlot:
        return self if self is _SHARED else KeySlot()

    def __reduce__(self) -> str | tuple[type[KeySlot], tuple[()]]:
        return "_SHARED" if self is _SHARED else (KeySlot, ())


# Layers that were not paired meet here: the last key mixed with, in this thread.
_SHARED = KeySlot()


def pair(mix: _Mixer, unmix: UnmixLinear) -> None:
    """Gives a mixing and an un-mixing layer a key slot of their own.

    Layers find each other without it, as long as one forward pass is over before another begins in the same thread.
    Pair them where two models' forwards interleave. :func:`facemix_ops.convert` always does.
    """
    if not isinstance(mix, _Mixer) or not isinstance(unmix, UnmixLinear):
        bad_type("pair", "mix and unmix", "be a MixConv2d or GroupMix and an UnmixLinear",
                 f"{type(mix).__name__} and {type(unmix).__name__}")  # fmt: skip
    mix.slot = unmix.slot = KeySlot()


class _Mixer(nn.Module):
    """What MixConv2d and GroupMix share: where their keys come from."""

    group_size: int
    max_coeff: float | None
    slot: KeySlot

    def _init_mixer(self, group_size: int, max_coeff: float | None) -> None:
        check_group_size(type(self).__name__, group_size)
        check_max_coeff(type(self).__name__, max_coeff, group_size)
        self.group_size, self.max_coeff, self.slot = group_size, max_coeff, _SHARED

    def _fresh_key(self, x: Tensor) -> MixKey:
        """One for this forward pass, left in the slot for the layer that un-mixes."""
        name = type(self).__name__
        if x.dim() == 0 or x.shape[0] % self.group_size:
            bad_value(
                name, "x", f"have a batch that is a multiple of group_size = {self.group_size}", f"{list(x.shape)}"
            )
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"{name}: recomputed during backward (activation checkpointing), where a fresh key would give wrong "
                f"gradients; keep the layer outside, or pass a key: layer(x, key)"
            )
        key = MixKey.sample(x.shape[0], self.group_size, max_coeff=self.max_coeff, device=x.device)
        self.slot.box.key = key
        return key


class MixConv2d(nn.Conv2d, _Mixer):
    """``nn.Conv2d`` whose output leaves mixed and shuffled; with what follows it on the edge fused in.

    Takes the arguments of :class:`torch.nn.Conv2d`, its state dict too, and by keyword:

    Args:
        group_size: images a group, 2 to 64 (the paper's S_G).
        norm: a normalisation of the convolution's output, such as ``nn.BatchNorm2d(out_channels)``. In training it
            runs as it is (batch statistics and all); in eval a BatchNorm2d is folded into the convolution.
        activation: None, "relu", "leaky_relu", ("leaky_relu", slope), nn.ReLU, nn.LeakyReLU or nn.PReLU(1).
        pool: max-pool behind the activation: None, a kernel, (kernel, stride, padding), or nn.MaxPool2d.
        max_coeff: bounds the coefficients of the keys it samples, see :meth:`facemix_ops.MixKey.sample`.

    ``layer(x, key)`` mixes with your key. ``layer(x)`` draws a fresh one from the operating system's CSPRNG and hands
    it to the :class:`UnmixLinear` that ends the forward pass, so that a model whose ``forward(x)`` knows nothing of
    keys works unchanged, in training and in eval. No key is ever part of the state dict.

    Shapes: x [B, C, H, W], B a multiple of ``group_size`` -> [B, out_channels, H', W'].

    Raises TypeError and ValueError, naming argument, rule and what came.
    """

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
        """A layer that shares ``conv``'s parameters."""
        layer = cls(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, conv.bias is not None, conv.padding_mode, "meta", conv.weight.dtype,
            group_size=group_size, norm=norm, activation=activation, pool=pool, max_coeff=max_coeff,
        )  # fmt: skip
        layer.weight, layer.bias = conv.weight, conv.bias
        return layer.train(conv.training)

    def forward(self, x: Tensor, key: MixKey | None = None) -> Tensor:
        """x [B, C, H, W] -> mixed and shuffled [B, out_channels, H', W']."""
        key = self._fresh_key(x) if key is None else key
        norm = self.norm
        if self.groups > 1 or (norm is not None and not _folds(norm)):
            z = super().forward(x)
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


class GroupMix(_Mixer):
    """Mixes and shuffles what it is given: for an edge half that ends deeper than its first convolution.

    ``layer(x, key)`` or ``layer(x)``, as :class:`MixConv2d`. Shapes: x [B, ...] -> [B, ...].
    """

    def __init__(self, group_size: int, *, max_coeff: float | None = None) -> None:
        super().__init__()
        self._init_mixer(group_size, max_coeff)

    def forward(self, x: Tensor, key: MixKey | None = None) -> Tensor:
        """x [B, ...] -> mixed and shuffled [B, ...]."""
        return group_mix(x, self._fresh_key(x) if key is None else key)

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}"


class UnmixLinear(nn.Linear):
    """``nn.Linear`` for rows that come back mixed: un-shuffles, un-mixes, multiplies.

    Takes the arguments of :class:`torch.nn.Linear` and its state dict. ``layer(y, key)`` un-mixes with your key;
    ``layer(y)`` takes the one that the mixing layer left in this forward pass, and zeroes it when no gradient will
    need it. Raises ValueError when there is none.

    Shapes: y [B, ..., in_features] -> [B, ..., out_features].
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.slot = _SHARED

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Self:
        """A layer that shares ``linear``'s parameters."""
        layer = cls(linear.in_features, linear.out_features, linear.bias is not None, "meta", linear.weight.dtype)
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def forward(self, y: Tensor, key: MixKey | None = None) -> Tensor:
        """y [B, ..., in_features], mixed -> [B, ..., out_features], rows in the order of the images."""
        if key is not None:
            return unmix_linear(y, key, self.weight, self.bias)
        box = self.slot.box
        key, box.key = box.key, None
        if key is None:
            bad_value(
                "UnmixLinear", "key", "be given, or left by a mixing layer earlier in the same forward pass",
                "none: is there a MixConv2d before it? Where models' forwards interleave, use facemix_ops.pair",
            )  # fmt: skip
        out = unmix_linear(y, key, self.weight, self.bias)
        # Where the rows want a gradient, the graph behind them has the key, even if this layer adds nothing to it.
        if not torch.compiler.is_compiling() and not (out.requires_grad or y.requires_grad):
            key.close()
        return out


def _folds(norm: nn.Module | None) -> TypeGuard[nn.BatchNorm2d]:
    """Whether the normalisation is a fixed affine map now: a BatchNorm2d in eval with running statistics.

    One with hooks is called, in eval as well, so that they run.
    """
    if not is_plain(norm, nn.BatchNorm2d) or norm.training or norm.running_mean is None:
        return False
    return not norm._forward_hooks and not norm._forward_pre_hooks


def _fold(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The convolution's weight and bias with an eval-mode BatchNorm2d behind it."""
    assert norm.running_mean is not None  # see _folds
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * scale if norm.bias is None else shift * scale + norm.bias
    return (weight * scale.reshape(-1, 1, 1, 1)).to(weight.dtype), shift.to(weight.dtype)


def _apply(norm: nn.Module, z: Tensor) -> Tensor:
    return norm.absorbed(z) if isinstance(norm, Absorbed) else norm(z)
