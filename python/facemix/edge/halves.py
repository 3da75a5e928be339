"""The edge's two halves, as calls of facemix_ops: fused where the layers allow it, layer by layer where
not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from torch import Tensor, fx, nn

import facemix_ops as fo
from facemix_ops.spec import is_plain

__all__ = ["first_half", "last_half"]

# What a MixConv2d takes along, in this order.
FUSABLE: tuple[tuple[type[nn.Module], ...], ...] = (
    (nn.BatchNorm2d,),
    (nn.ReLU, nn.LeakyReLU, nn.PReLU),
    (nn.MaxPool2d,),
)

Half = Callable[[Tensor, fo.MixKey], Tensor]


def first_half(module: fx.GraphModule, group_size: int) -> Half:
    """Return a function (images [B, ...], key) -> mixed and shuffled features [B, ...].

    A convolution, with the batch norm, activation and max-pool that may follow, becomes one `MixConv2d`: no
    un-mixed feature map is ever written to memory. Anything deeper runs as it is, and `group_mix` comes after
    it.

    Args:
        module: `partition(...).edge_first`; its layers stay in their modes.
        group_size: images in a group.
    """
    layers = _chain(module)
    if layers and isinstance(conv := layers[0], nn.Conv2d):
        rest = layers[1:]
        found = [rest.pop(0) if rest and any(is_plain(rest[0], k) for k in kinds) else None for kinds in FUSABLE]
        if not rest:
            norm, activation, pool = found
            # The layer refuses what its kernel cannot do, such as a PReLU with a slope for each channel.
            with contextlib.suppress(TypeError, ValueError):
                return fo.MixConv2d.from_conv(conv, group_size=group_size, norm=norm, activation=activation, pool=pool)
    return lambda images, key: fo.group_mix(module(images), key)


def last_half(module: fx.GraphModule) -> Half:
    """Return a function (mixed outputs [B, ...], key) -> scores [B, classes] in the order of the images.

    Args:
        module: `partition(...).edge_last`, likewise.
    """
    layers = _chain(module)
    if len(layers) == 1 and isinstance(linear := layers[0], nn.Linear):
        # The layer refuses what it cannot share, such as a weight that is computed.
        with contextlib.suppress(TypeError, ValueError):
            return fo.UnmixLinear.from_linear(linear)
    return lambda outputs, key: module(fo.group_unmix(outputs, key))


def _chain(module: fx.GraphModule) -> list[nn.Module]:
    """Return the layers of `module`, but for identities, if it is nothing but a chain of layers, else an empty list."""
    nodes = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
    if any(node.op != "call_module" or len(node.users) != 1 for node in nodes):
        return []
    layers = [module.get_submodule(str(node.target)) for node in nodes]
    return [layer for layer in layers if not is_plain(layer, nn.Identity)]
