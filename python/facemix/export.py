"""Write the files that the two sides run: for the cloud the weights of the middle of a network, and how to rebuild
its code; for an edge without PyTorch the first and the last layer (`facemix_ops.edge`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

import facemix_ops as fo
from facemix_ops.edge import Bundle, BundleError, EdgeModel
from facemix_ops.edge.bundle import CONFIG_KEY, DECOYS, KIND, SCALES
from facemix_ops.edge.preprocess import check_images
from facemix_ops.edge.safetensors import DIGEST_KEY, NO_DIGEST, seal
from facemix_ops.keys import check_group_size
from facemix_ops.spec import LEAKY, RELU, is_plain, parse_activation, parse_pool

from .atomic import atomic_path
from .calibration import mixtures, scales
from .cloud.model import CloudModel
from .edge.halves import first_half, last_half
from .partition import partition
from .storage import CLOUD_KIND, fingerprint, save_tensors

__all__ = ["check_plain", "export_cloud", "export_edge", "features_of"]

Images = Tensor | NDArray[np.uint8]

# Options of a model that concern its last layers alone. The cloud never learns them: the number of classes
# says how many people the edge tells apart.
EDGE_OPTIONS = ("num_classes", "head")


def export_cloud(
    path: str | os.PathLike[str],
    model: nn.Module,
    builder: str,
    options: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    *,
    name: str,
    version: int = 1,
    pre: int | str = 1,
    post: int | str = 1,
) -> None:
    """Write the cloud part of `model` to `path`, and neither the edge's first part nor its last.

    Args:
        path: a .safetensors file.
        model: plain (not converted) and trained.
        builder, options: what `models.build` makes such a model of.
        image_shape: (channels, height, width) of an image.
        name, version: what clients call the model; the version is a positive integer.
        pre, post: the cut, see `partition`.

    Raises:
        ValueError: if the network mixes by itself, see `check_plain`, cannot be cut so, does not take such images, or
            is not what `builder` makes of `options`; or the name or the version will not do.
    """
    check_plain("export_cloud", model)
    parts = partition(model, pre, post)
    features = features_of("export_cloud", parts.edge_first.eval(), image_shape)
    config = {
        "kind": CLOUD_KIND,
        "name": name,
        "version": version,
        "network": fingerprint(parts),
        "builder": builder,
        "options": {key: value for key, value in options.items() if key not in EDGE_OPTIONS},
        "pre": pre,
        "post": post,
        "input_shape": list(features.shape[1:]),
    }
    with atomic_path(path) as temporary:
        save_tensors(temporary, parts.cloud.state_dict(), config)
        try:
            CloudModel(temporary)  # what a cloud could not load is not written
        except ValueError as error:
            text = str(error).removeprefix("CloudModel: ").replace(str(temporary), os.fspath(path))
            raise ValueError(f"export_cloud: {text}") from None


def export_edge(
    path: str | os.PathLike[str],
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    name: str,
    version: int = 1,
    group_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    max_coeff: float | None = None,
    wire_dtype: str = "float32",
    classes: Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
    calibration: Images | None = None,
    decoys: Images | None = None,
    pre: int | str = 1,
    post: int | str = 1,
) -> None:
    """Write the edge part of `model` to `path`, for `facemix_ops.edge.EdgeModel`: the first convolution with its
    batch norm folded in, and the last layer.

    Args:
        path: a .safetensors file.
        model: plain (not converted) and trained.
        image_shape: (channels, height, width) of an image.
        name, version: what the cloud calls the model.
        group_size: images in a group, 2 to 64; what the network was trained with.
        mean, std: of each channel, of pixels from 0 to 1: the network takes (pixel / 255 - mean) / std.
        max_coeff: bound on the largest coefficient of a key, see `facemix_ops.MixKey.sample`.
        wire_dtype: what the edge sends where it is not told: "float32", "float16", "bfloat16" or "int8".
        classes: a name for each score.
        attributes: of a network that tells attributes, a name for each two scores, which are of no and of yes.
        calibration: images like those to classify, uint8 [N, H, W, C], at least a group of them: the scales of int8 are
            found in their mixtures, see `facemix.calibration`. Without them, int8 cannot be sent. They are not kept.
        decoys: public images, uint8 [D, H, W, C], kept in the file in plain sight, to fill groups with.
        pre, post: the cut, see `partition`.

    Raises:
        TypeError: if images are not uint8.
        ValueError: if the network mixes by itself, see `check_plain`; if the edge part is more than one convolution
            (with batch norm, activation and max-pool behind it, where there are any) and one linear layer, or an
            argument will not do.
    """
    check_group_size("export_edge", group_size)
    check_plain("export_edge", model)
    parts = partition(model, pre, post)
    first, last = first_half(parts.edge_first, group_size), last_half(parts.edge_last)
    if not isinstance(first, fo.MixConv2d) or first.groups != 1 or first.padding_mode != "zeros":
        raise ValueError(
            "export_edge: the first part of model must be one convolution, padded with zeros and without groups, and "
            "no more behind it than batch norm, activation and max-pool that facemix_ops can fuse, in this order; "
            f"got {_layers(parts.edge_first)}"
        )
    if not isinstance(last, fo.UnmixLinear):
        raise ValueError(
            f"export_edge: the last part of model must be one linear layer, got {_layers(parts.edge_last)}"
        )
    channels, height, width = image_shape
    weight, bias = _folded(first)
    config = {
        "kind": KIND,
        "name": name,
        "version": version,
        "network": fingerprint(parts),
        "image_shape": [height, width, channels],
        "mean": list(mean),
        "std": list(std),
        "stride": list(first.stride),
        "padding": _padding(first),
        "dilation": list(first.dilation),
        "activation": _activation(first),
        "pool": _pool(first),
        "group_size": group_size,
        "max_coeff": max_coeff,
        "wire_dtype": wire_dtype,
        "classes": None if classes is None else list(classes),
        **({} if attributes is None else {"attributes": list(attributes)}),
    }
    tensors = {
        "first.weight": weight,
        "first.bias": bias,
        "last.weight": last.weight,
        "last.bias": torch.zeros(last.out_features) if last.bias is None else last.bias,
    }
    plain = {key: tensor.detach().to("cpu", torch.float32).contiguous() for key, tensor in tensors.items()}
    try:
        if decoys is not None:
            plain[DECOYS] = torch.from_numpy(_images("decoys", decoys, config["image_shape"], 1))
        if calibration is not None:
            images = _images("calibration", calibration, config["image_shape"], group_size)
            floats = Bundle.parse(_sealed({**config, "wire_dtype": "float32"}, plain))
            plain[SCALES] = torch.from_numpy(scales(mixtures(EdgeModel(floats), images)))
        data = _sealed(config, plain)
        Bundle.parse(data)
    except BundleError as error:
        raise ValueError(f"export_edge: {error}") from None
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def check_plain(op: str, model: nn.Module) -> None:
    """Refuse a network that mixes by itself, such as `facemix_ops.convert` makes: neither side runs it. A plain one
    takes its weights, by the same names.

    Raises:
        ValueError: saying so.
    """
    kinds = (fo.MixConv2d, fo.GroupMix, fo.UnmixLinear, fo.GroupUnmix)
    if mixing := [name for name, module in model.named_modules() if isinstance(module, kinds)]:
        raise ValueError(
            f"{op}: model must be plain, with an nn.Conv2d and an nn.Linear where it mixes, got "
            f"{type(model).__name__}, which mixes in {', '.join(mixing)}; build a plain one and give it the weights: "
            "plain.load_state_dict(model.state_dict())"
        )


def features_of(op: str, first: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """What the first part makes of one image, a black one: [1, ...].

    Raises:
        ValueError: if it does not take such an image.
    """
    try:
        with torch.inference_mode():
            features: Tensor = first(torch.zeros(1, *image_shape))
    except (RuntimeError, TypeError, ValueError) as error:  # as PyTorch has it
        rule = "model must take images of image_shape, (channels, height, width), in float32 on the CPU"
        raise ValueError(f"{op}: {rule}, got {image_shape}: {error}") from error
    return features


def _sealed(config: Mapping[str, Any], tensors: dict[str, Tensor]) -> bytes:
    return seal(save(tensors, {CONFIG_KEY: json.dumps(config, sort_keys=True), DIGEST_KEY: NO_DIGEST}))


def _images(argument: str, images: Images, image_shape: Sequence[int], least: int) -> NDArray[np.uint8]:
    array = images.numpy(force=True) if isinstance(images, Tensor) else images
    height, width, channels = image_shape
    check_images("export_edge", argument, array, (height, width, channels))
    if len(array) < least:
        raise ValueError(f"export_edge: {argument} must be at least {least} images, got {len(array)}")
    return np.ascontiguousarray(array)


def _layers(module: nn.Module) -> list[str]:
    return [str(layer) for layer in module.modules() if not list(layer.children())]


def _folded(conv: fo.MixConv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias with the batch norm folded in, in float64."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if conv.bias is None else conv.bias.detach().double()
    norm = conv.norm
    if norm is None:
        return weight, bias
    if not is_plain(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise ValueError(f"export_edge: the norm of model must be a batch norm with running statistics, got {norm}")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma, beta = (None if t is None else t.detach().double() for t in (norm.weight, norm.bias))
    return fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, gamma, beta)


def _padding(conv: fo.MixConv2d) -> list[int]:
    if isinstance(conv.padding, tuple):
        return list(conv.padding)
    if conv.padding == "valid":
        return [0, 0]
    total = [conv.dilation[d] * (conv.kernel_size[d] - 1) for d in (0, 1)]
    if any(t % 2 for t in total):
        raise ValueError(f"export_edge: the first convolution must pad both sides alike, got {conv}")
    return [t // 2 for t in total]


def _activation(conv: fo.MixConv2d) -> Any:
    kind, slope, prelu = parse_activation("export_edge", conv.activation)
    if kind == LEAKY:
        return ["leaky_relu", slope if prelu is None else prelu.item()]
    return "relu" if kind == RELU else None


def _pool(conv: fo.MixConv2d) -> Any:
    sizes = parse_pool("export_edge", conv.pool)
    return [sizes[0:2], sizes[2:4], sizes[4:6]] if sizes else None
