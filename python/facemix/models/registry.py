"""Names of models, so that one can be rebuilt from a JSON config: a pickle would let a weights file run
code. Nor may a file say what to import: who runs it does, see `facemix.imports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["build", "build_bare", "names", "register"]

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

#: Made around another network, which is what one chooses: files name it, and `training.protecting` builds it.
AROUND = {"protected"}

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorate a builder (a function or a class) whose keyword arguments are JSON values.

    Raises:
        ValueError: if the name is taken.
    """

    def add(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise ValueError(f"register: the model name {name!r} is taken")
        _BUILDERS[name] = builder
        return builder

    return add


def names() -> list[str]:
    """Return the names to choose from, sorted: all that are registered but for those of `AROUND`."""
    return sorted(_BUILDERS.keys() - AROUND)


def build(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the model called `name` with keyword arguments `options`, randomly initialised.

    Raises:
        ValueError: if there is no such model, or it refuses an option.
    """
    if name not in _BUILDERS:
        raise ValueError(
            f"build: name must be one of {', '.join(names())}, got {name!r}; for a model of your own import the module "
            "that registers it: --import MODULE"
        )
    try:
        return _BUILDERS[name](**(options or {}))
    except (TypeError, RuntimeError, OverflowError) as error:  # arguments that are not there; sizes beyond PyTorch's
        raise ValueError(f"build: options must suit {name}, got {options!r}: {error}") from error


def build_bare(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Build the model called `name` on PyTorch's device "meta": shapes, and no weights.

    Raises:
        ValueError: as `build`.
    """
    with torch.device("meta"), _Undrawn():
        return build(name, options)


class _Undrawn(TorchFunctionMode):
    """Draws no normal values: without memory there is nothing to draw, and PyTorch would import its compiler for it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0] if func is Tensor.normal_ else func(*args, **(kwargs or {}))
