"""Modules whose work a mixing layer does: what becomes of them in a converted model."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from torch import Tensor, nn


class Absorbed(nn.Module):
    """A module whose work the MixConv2d before it does. It stays where it was, with its parameters and its name, so
    that state dicts and optimisers see the model they know; in the forward pass it hands its input on."""

    fusable = True  # see facemix_ops.spec.is_plain

    def forward(self, x: Tensor) -> Tensor:
        return x


class AbsorbedBatchNorm2d(Absorbed, nn.BatchNorm2d):
    """See :class:`Absorbed`."""

    def absorbed(self, x: Tensor) -> Tensor:
        """What the module did before."""
        return nn.BatchNorm2d.forward(self, x)


class AbsorbedReLU(Absorbed, nn.ReLU):
    """See :class:`Absorbed`."""


class AbsorbedLeakyReLU(Absorbed, nn.LeakyReLU):
    """See :class:`Absorbed`."""


class AbsorbedPReLU(Absorbed, nn.PReLU):
    """See :class:`Absorbed`."""


class AbsorbedMaxPool2d(Absorbed, nn.MaxPool2d):
    """See :class:`Absorbed`."""


class Intact:
    """A hook before a converted model's forward pass: refuses it where a module that convert put in, or that was
    absorbed, has been replaced, or where it is called with arguments that convert did not follow.

    One layer without the other leaves rows mixed. A module in an absorbed one's place would work on mixed rows, after
    the old one, which the mixing layer holds, has done that work.

    Args:
        first, last: names of the mixing and of the un-mixing layer, which share a slot.
        absorbed: by attributes of the mixing layer, the names of the modules that they hold.
        arguments: names of those that forward was followed with.
    """

    def __init__(self, first: str, last: str, absorbed: dict[str, str], arguments: list[str]) -> None:
        self.first, self.last, self.absorbed, self.arguments = first, last, absorbed, arguments

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        others = [name for name in kwargs if name not in self.arguments]
        if others or len(args) + len(kwargs) > len(self.arguments):
            raise ValueError(
                f"{type(model).__name__}: a call must give {', '.join(self.arguments)} and no other argument, as "
                "facemix_ops.convert followed forward, which may do something else with others, got "
                f"{', '.join((f'{len(args)} by position', *others))}. Convert a module that calls this one with them"
            )
        mix, unmix = attrgetter(self.first)(model), attrgetter(self.last)(model)
        if getattr(mix, "slot", mix) is not getattr(unmix, "slot", unmix):
            raise RuntimeError(
                f"{type(model).__name__}: {self.first!r} and {self.last!r} must be a pair that mixes and un-mixes, got "
                f"{type(mix).__name__} and {type(unmix).__name__}, replaced after facemix_ops.convert. Replace layers "
                "before you convert, or put a facemix_ops.UnmixLinear there and facemix_ops.pair the two"
            )
        for attribute, name in self.absorbed.items():
            if getattr(mix, attribute) is not attrgetter(name)(model):
                raise RuntimeError(
                    f"{type(model).__name__}: {name!r} or {self.first!r} was replaced after facemix_ops.convert, so "
                    "the work of the former would be done twice, before and behind the mix, or not at all. Replace "
                    "modules before you convert (SyncBatchNorm cannot be converted); on several GPUs use "
                    "DistributedDataParallel, not DataParallel, which replaces them"
                )


# What can be fused, by stage; a chain takes each stage once and in this order.
STAGES: dict[type[nn.Module], tuple[int, type[Absorbed]]] = {
    nn.BatchNorm2d: (0, AbsorbedBatchNorm2d),
    nn.ReLU: (1, AbsorbedReLU),
    nn.LeakyReLU: (1, AbsorbedLeakyReLU),
    nn.PReLU: (1, AbsorbedPReLU),
    nn.MaxPool2d: (2, AbsorbedMaxPool2d),
}
