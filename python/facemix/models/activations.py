"""The activation that a network's cloud part uses."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["ACTIVATIONS", "activation_factory"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    # A slope of 1 makes the layer the identity: mixing-aware training starts from a cloud part that is
    # linear between its poolings, the case in which un-mixing is exact (paper, section 3.4).
    "prelu": lambda: nn.PReLU(init=1.0),
    # A cloud part that is linear and stays so: what the others are compared with.
    "identity": nn.Identity,
}


def activation_factory(name: str) -> Callable[[], nn.Module]:
    """Return the builder of the activation called `name`: "relu", "prelu" or "identity".

    Raises:
        ValueError: if there is no such activation.
    """
    try:
        return ACTIVATIONS[name]
    except KeyError:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {name!r}") from None
