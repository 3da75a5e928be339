"""The file of an edge half that runs on PyTorch: a safetensors file with a digest, as `facemix_ops.edge` has it.

Tensors:

    weights.NAME             the edge's share of the network's state dict; float32 but for counters
    wire.scales [C]          optional: of int8 on the wire, float32
    decoys [D, H, W, C]      optional: public images to fill groups with, uint8

and in the metadata a JSON config with the fields of `TorchBundle` that are no tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from facemix_ops.edge import BundleError, safetensors
from facemix_ops.edge.bundle import CONFIG_KEY, DECOYS, MAX_MAP, MAX_NAME, MAX_VERSION, MIN_STD, SCALES
from facemix_ops.edge.fields import Fields
from facemix_ops.edge.preprocess import check_images
from facemix_ops.edge.safetensors import DIGEST_KEY, NO_DIGEST
from facemix_ops.edge.wire import WIRE_DTYPES
from facemix_ops.rules import MAX_GROUP, check_max_coeff

__all__ = ["KIND", "TorchBundle", "read", "written"]

#: What the config says that it is; the number changes when the config does.
KIND = "facemix-edge-torch-1"
WEIGHTS = "weights."


@dataclass(frozen=True, eq=False)
class TorchBundle:
    """What an edge half is, but for its weights.

    Attributes:
        name, version: what the cloud calls the model.
        network: the fingerprint of the whole network; the cloud must serve the middle of the same.
        builder, options: what `models.build` makes such a network of.
        pre, post: the cut, see `partition`.
        image_shape: (H, W, C) of an image.
        mean, std: of each channel, of pixels from 0 to 1: the network takes (pixel / 255 - mean) / std.
        features_shape: (C, H, W), what is sent for an image.
        outputs_shape: what comes back for it.
        group_size: S, images in a group; 1: nothing is mixed, and the cloud receives what the first part makes of
            each image.
        max_coeff: bound on the largest coefficient of a key, or None.
        wire_dtype: what to send where the caller does not say: a key of `WIRE_DTYPES`.
        classes: a name for each score, or None.
        scales: float32 [C], value = integer * scale of int8 on the wire, or None.
        decoys: public images uint8 [D, H, W, C], or None.
        attributes: see `facemix_ops.edge.Bundle`.
    """

    name: str
    version: int
    network: str
    builder: str
    options: dict[str, Any]
    pre: int | str
    post: int | str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    features_shape: tuple[int, int, int]
    outputs_shape: tuple[int, ...]
    group_size: int
    max_coeff: float | None
    wire_dtype: str
    classes: tuple[str, ...] | None
    scales: NDArray[np.float32] | None
    decoys: NDArray[np.uint8] | None
    attributes: tuple[str, ...] | None = None


def written(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    scales: NDArray[np.float32] | None,
    decoys: NDArray[np.uint8] | None,
) -> bytes:
    """The bytes of a file; `config` has the fields of `TorchBundle` that are no tensors."""
    tensors = {WEIGHTS + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    for name, array in ((SCALES, scales), (DECOYS, decoys)):
        if array is not None:
            tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
    text = json.dumps({"kind": KIND, **config}, sort_keys=True)
    return safetensors.seal(save(tensors, {CONFIG_KEY: text, DIGEST_KEY: NO_DIGEST}))


def read(data: bytes) -> tuple[TorchBundle, dict[str, Tensor]]:
    """What `written` wrote: the bundle and the weights by name.

    Raises:
        BundleError: if it is no such file, was damaged or altered, or is newer than this version.
    """
    contents = safetensors.parse(data)
    config = safetensors.parse_json(contents.metadata.get(CONFIG_KEY, "{}"), "the config")
    if (kind := config.pop("kind", None)) != KIND:
        raise BundleError(f"the kind must be {KIND!r}, got {str(kind)[:40]!r}")
    safetensors.check_digest(data, contents)
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise BundleError(f"the tensors must be those of a safetensors file, got {error}") from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BundleError(f"tensor {name[:40]!r} must be finite, got values that are not")
    scales, decoys = (tensors.pop(name, None) for name in (SCALES, DECOYS))
    bundle = _build(config, scales, decoys)
    return bundle, {name.removeprefix(WEIGHTS): tensor for name, tensor in tensors.items()}


def _build(config: dict[str, Any], scales: Tensor | None, decoys: Tensor | None) -> TorchBundle:
    options, pre, post, outputs = (config.pop(name, None) for name in ("options", "pre", "post", "outputs_shape"))
    if not isinstance(options, dict):
        raise BundleError(f"options must be a JSON object, got {type(options).__name__}")
    for name, cut in (("pre", pre), ("post", post)):
        if type(cut) not in (int, str):
            raise BundleError(f"{name} must be a number of blocks or the name of a module, got {type(cut).__name__}")
    if not isinstance(outputs, list) or not outputs or not all(type(size) is int and size > 0 for size in outputs):
        raise BundleError(f"outputs_shape must be positive integers, got {repr(outputs)[:80]}")
    classes = config.get("classes")
    fields = Fields({"attributes": None, **config})
    image = fields.integers("image_shape", 3, 1)
    bundle = TorchBundle(
        name=fields.text("name", MAX_NAME),
        version=fields.integer("version", 1, MAX_VERSION),
        network=fields.text("network", MAX_NAME),
        builder=fields.text("builder", MAX_NAME),
        options=options,
        pre=pre,
        post=post,
        image_shape=image,
        mean=fields.numbers("mean", image[2]),
        std=fields.numbers("std", image[2]),
        features_shape=fields.integers("features_shape", 3, 1),
        outputs_shape=tuple(outputs),
        group_size=fields.integer("group_size", 1, MAX_GROUP),
        max_coeff=fields.optional_number("max_coeff"),
        wire_dtype=fields.choice("wire_dtype", tuple(WIRE_DTYPES)),
        classes=fields.texts("classes", len(classes) if isinstance(classes, list) else 1, MAX_NAME),
        scales=None if scales is None else scales.numpy(),
        decoys=None if decoys is None else decoys.numpy(),
        attributes=fields.names("attributes", MAX_NAME),
    )
    fields.finish()
    _check(bundle)
    return bundle


def _check(bundle: TorchBundle) -> None:
    """What fields must be together."""
    for name in ("image_shape", "features_shape", "outputs_shape"):
        if math.prod(shape := getattr(bundle, name)) > MAX_MAP:
            raise BundleError(f"{name} must be of at most {MAX_MAP} values, got {list(shape)[:8]}")
    if min(bundle.std) < MIN_STD:
        raise BundleError(f"std must be at least {MIN_STD}, got {list(bundle.std)}")
    scales, channels = bundle.scales, bundle.features_shape[0]
    if scales is None:
        if bundle.wire_dtype == "int8":
            raise BundleError("wire_dtype must be a float where there are no scales, got 'int8'")
    elif scales.dtype != np.float32 or scales.shape != (channels,) or scales.min() <= 0:
        raise BundleError(f"scales must be positive float32 [{channels}], got {scales.dtype} {list(scales.shape)}")
    try:
        check_max_coeff("bundle", bundle.max_coeff, bundle.group_size)
        if bundle.decoys is not None:
            check_images("bundle", "decoys", bundle.decoys, bundle.image_shape)
    except (TypeError, ValueError) as error:
        raise BundleError(str(error).removeprefix("bundle: ")) from None
