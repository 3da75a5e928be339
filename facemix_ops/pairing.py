"""How the key of one forward pass gets from the layer that mixes to the layer that un-mixes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from .checks import check_tensor
from .keys import MixKey, check_group_size
from .rules import bad_type, bad_value, check_max_coeff


class KeyBox:
    """What holds the key in a :class:`KeySlot`."""

    key: MixKey | None = None
    recorded = False  # whether a backward pass through the mix will want it

    def empty(self) -> None:
        """Drops, and zeroes, what a forward pass left that no layer un-mixed."""
        if not torch.compiler.is_compiling() and self.key is not None and not self.recorded:
            self.key.close()
        self.key = None


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


def pair(mix: Mixer, unmix: Unmixer) -> None:
    """Gives a mixing and an un-mixing layer a key slot of their own.

    Layers find each other without it, as long as one forward pass is over before another begins in the same thread.
    Pair them where two models' forwards interleave. :func:`facemix_ops.convert` always does.
    """
    if not isinstance(mix, Mixer) or not isinstance(unmix, Unmixer):
        bad_type("pair", "mix and unmix", "be a MixConv2d or GroupMix and an UnmixLinear or GroupUnmix",
                 f"{type(mix).__name__} and {type(unmix).__name__}")  # fmt: skip
    mix.slot = unmix.slot = KeySlot()


class Mixer(nn.Module, ABC):
    """What MixConv2d and GroupMix share: where their keys come from."""

    group_size: int
    max_coeff: float | None
    ndim: int | None = None  # dimensions of what it takes; None: any
    slot = _SHARED

    def _init_mixer(self, group_size: int, max_coeff: float | None) -> None:
        check_group_size(type(self).__name__, group_size)
        check_max_coeff(type(self).__name__, max_coeff, group_size)
        self.group_size, self.max_coeff = group_size, max_coeff

    def forward(self, x: Tensor, key: MixKey | None = None) -> Tensor:
        """``x`` mixed and shuffled: with ``key``, or a fresh one, left in the slot for the layer that un-mixes."""
        box = self.slot.box
        box.empty()  # what is un-mixed next is this pass's
        if key is not None:
            return self._mix(x, key)
        key = self._fresh_key(x)
        try:
            y = self._mix(x, key)
        except BaseException:
            if not torch.compiler.is_compiling():
                key.close()
            raise
        box.key, box.recorded = key, y.requires_grad
        return y

    @abstractmethod
    def _mix(self, x: Tensor, key: MixKey) -> Tensor:
        """``x`` mixed with ``key``."""

    def _fresh_key(self, x: Tensor) -> MixKey:
        name = type(self).__name__
        check_tensor(name, "x", x, ndim=self.ndim)
        if x.dim() == 0 or x.shape[0] % self.group_size:
            bad_value(
                name, "x", f"have a batch that is a multiple of group_size = {self.group_size}", f"{list(x.shape)}"
            )
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                f"{name}: recomputed during backward (activation checkpointing), where a fresh key would give wrong "
                f"gradients; keep the layer outside, or pass a key: layer(x, key)"
            )
        if not torch.compiler.is_compiling() and _in_vmap():
            raise RuntimeError(
                f"{name}: under torch.vmap, where one fresh key would mix every slice; keep the layer outside, or pass "
                f"a key: layer(x, key)"
            )
        return MixKey.sample(x.shape[0], self.group_size, max_coeff=self.max_coeff, device=x.device)


def _in_vmap() -> bool:
    level: Any = torch._C._functorch.peek_interpreter_stack()
    return level is not None and level.key() == torch._C._functorch.TransformType.Vmap


class Unmixer(nn.Module, ABC):
    """What UnmixLinear and GroupUnmix share: they take the key that a mixing layer left."""

    slot = _SHARED

    def forward(self, y: Tensor, key: MixKey | None = None) -> Tensor:
        """``y`` un-mixed, rows in the order of the images: with ``key``, or the one in the slot, which is then gone."""
        if key is not None:
            return self._unmix(y, key)
        box = self.slot.box
        key = box.key
        if key is None:
            bad_value(
                type(self).__name__, "key", "be given, or left by a mixing layer earlier in the same forward pass",
                "none: there is no MixConv2d or GroupMix before it, or another layer has un-mixed with its key (for "
                "several heads un-mix once, with one GroupUnmix or one fused UnmixLinear, or pass the key to each). "
                "Where models' forwards interleave, use facemix_ops.pair",
            )  # fmt: skip
        out = self._unmix(y, key)  # where that refuses y, the right one may still come
        box.key = None
        if not torch.compiler.is_compiling() and not (out.requires_grad or box.recorded):
            key.close()
        return out

    @abstractmethod
    def _unmix(self, y: Tensor, key: MixKey) -> Tensor:
        """``y`` un-mixed with ``key``."""
