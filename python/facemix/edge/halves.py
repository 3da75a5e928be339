"""The edge's two halves, as calls of facemix_ops: fused where the layers allow it, layer by layer where
not.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import facemix_ops as fo

__all__ = ["first_half", "last_half"]

Half = Callable[[Tensor, fo.MixKey], Tensor]


def first_half(module: fx.GraphModule) -> Half:
    """Return a function (images [B, ...], key) -> mixed and shuffled features [B, ...].

    A convolution, with the batch norm, activation and max-pool that may follow, becomes one `conv_mix`: no
    un-mixed feature map is ever written to memory. Anything deeper runs as it is, and `group_mix` comes after
    it.

    Args:
        module: `partition(...).edge_first`, in eval mode.
    """
    layers = _chain(module)
    conv = layers.pop(0) if layers else None
    if not isinstance(conv, nn.Conv2d) or conv.groups != 1 or conv.padding_mode != "zeros":
        return lambda images, key: fo.group_mix(module(images), key)
    activation: object = None
    pool: object = None
    if layers and isinstance(norm := layers[0], nn.BatchNorm2d) and norm.running_mean is not None:
        conv = fuse_conv_bn_eval(conv, norm)
        del layers[0]
    if layers and (activation := _activation(layers[0])) is not None:
        del layers[0]
    if layers and (pool := _pool(layers[0])) is not None:
        del layers[0]
    if layers:
        return lambda images, key: fo.group_mix(module(images), key)

    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()

    def fused(images: Tensor, key: fo.MixKey) -> Tensor:
        return fo.conv_mix(
            images,
            weight,
            bias,
            key,
            stride=conv.stride,
            padding=conv.padding,
            dilation=conv.dilation,
            activation=activation,
            pool=pool,
        )

    return fused


def last_half(module: fx.GraphModule) -> Half:
    """Return a function (mixed outputs [B, ...], key) -> scores [B, classes] in the order of the images.

    Args:
        module: `partition(...).edge_last`, in eval mode.
    """
    layers = _chain(module)
    if len(layers) == 1 and isinstance(linear := layers[0], nn.Linear):
        weight, bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        return lambda outputs, key: fo.unmix_linear(outputs, key, weight, bias)
    return lambda outputs, key: module(fo.group_unmix(outputs, key))


def _chain(module: fx.GraphModule) -> list[nn.Module]:
    """Return the layers of `module` if it is nothing but a chain of layers, else an empty list."""
    nodes = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
    if any(node.op != "call_module" or len(node.users) != 1 for node in nodes):
        return []
    return [module.get_submodule(str(node.target)) for node in nodes]


def _activation(layer: nn.Module) -> object:
    """Return `layer` as `conv_mix` takes it, or None if it does not."""
    if isinstance(layer, nn.ReLU):
        return "relu"
    if isinstance(layer, nn.LeakyReLU):
        return ("leaky_relu", layer.negative_slope)
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return ("prelu", layer.weight.detach())
    return None


def _pool(layer: nn.Module) -> object:
    """Return `layer` as `conv_mix` takes it, or None if it does not."""
    if not isinstance(layer, nn.MaxPool2d) or layer.ceil_mode or layer.return_indices:
        return None
    if layer.dilation not in (1, (1, 1)):
        return None
    return (layer.kernel_size, layer.stride, layer.padding)
