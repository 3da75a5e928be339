"""The edge half on PyTorch, for networks whose ends `facemix_ops.edge` cannot run: a first part deeper than one
convolution, a last part that is more than one linear layer. `facemix.export_torch.export_edge_torch` writes its file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

import facemix_ops as fo
from facemix.models import build_bare
from facemix.partition import partition
from facemix_ops.edge import BundleError
from facemix_ops.edge.bundle import MAX_MAP
from facemix_ops.edge.grouping import digest, places
from facemix_ops.edge.key import Key
from facemix_ops.edge.preprocess import check_images
from facemix_ops.edge.request import Request
from facemix_ops.edge.wire import LARGEST, WIRE_DTYPES
from facemix_ops.rules import bad_value

from .halves import first_half, last_half
from .torch_bundle import TorchBundle, read

__all__ = ["TorchHalf", "TorchRequest"]


class TorchHalf:
    """What `facemix_ops.edge.EdgeModel` is for one convolution and one linear layer: images to what the cloud gets,
    the cloud's reply to scores. On the CPU. Any number of threads may use one at once.

    Where the bundle's group size is 1, **nothing is mixed or shuffled**: what the first part makes of an image is what
    the cloud sees of it.

    Args:
        bundle: names, shapes and settings.
        weights: of both parts, by their names in the whole network.

    Attributes:
        bundle: the same.
        first, last: the parts, without any mixing.
        rows_per_image: that are sent: 1, or patches.

    Raises:
        BundleError: if weights and bundle do not belong together.
    """

    def __init__(self, bundle: TorchBundle, weights: Mapping[str, Tensor]) -> None:
        self.bundle = bundle
        self.first, self.last, self.rows_per_image = _parts(bundle, weights)
        if bundle.group_size > 1:
            self._first, self._last = first_half(self.first, bundle.group_size), last_half(self.last)
        std = torch.tensor(bundle.std, dtype=torch.float64)
        self._factor = (1 / (255 * std)).float().view(-1, 1, 1)
        self._offset = (-torch.tensor(bundle.mean, dtype=torch.float64) / std).float().view(-1, 1, 1)

    @classmethod
    def parse(cls, data: bytes) -> TorchHalf:
        """The half in the bytes of a file; `facemix.edge.load_half` reads files.

        Raises:
            BundleError: a ValueError; if it is no such half, was damaged or altered, or is newer than this version.
        """
        return cls(*read(data))

    def mix(self, images: NDArray[np.uint8], *, wire_dtype: str | None = None) -> TorchRequest:
        """Pre-process, run the first part, mix with a fresh key and shuffle: all that happens before the upload.

        Which images share a group follows from the images, and where sending fails, send the payload again: see
        `facemix_ops.edge.EdgeModel.mix`.

        Args:
            images: uint8 [N, H, W, C], N whole groups, any strides.
            wire_dtype: "float32", "float16", "bfloat16", or "int8" where the file has scales; default: the bundle's.

        Returns:
            The request, to be used as a context manager: its key is zeroed when the block ends.

        Raises:
            TypeError, ValueError: naming argument, rule and what came.
        """
        op, bundle = "TorchHalf.mix", self.bundle
        check_images(op, "images", images, bundle.image_shape)
        wire_dtype = bundle.wire_dtype if wire_dtype is None else wire_dtype
        if wire_dtype not in WIRE_DTYPES:
            bad_value(op, "wire_dtype", f"be one of {', '.join(WIRE_DTYPES)}", repr(wire_dtype))
        if wire_dtype == "int8" and bundle.scales is None:
            bad_value(op, "wire_dtype", "be a float for a file that was written without calibration", repr(wire_dtype))
        if len(images) % bundle.group_size:
            bad_value(op, "images", f"divide into groups of {bundle.group_size}", f"{len(images)}")
        key = None
        if bundle.group_size > 1:
            rows = places([digest(image) for image in images], self.rows_per_image)
            key = Key(rows, bundle.group_size, bundle.max_coeff)
        try:
            with torch.inference_mode():
                payload = _on_the_wire(self._sent(images, key), wire_dtype, bundle.scales)
        except BaseException:
            if key is not None:
                key.close()
            raise
        return TorchRequest(self, key, payload, wire_dtype)

    def inputs(self, images: NDArray[np.uint8], rows: NDArray[np.int64] | None = None) -> Tensor:
        """The first part's input, float32 [N, C, H, W], of uint8 [N, H, W, C]; image n in row rows[n], or in row n."""
        height, width, channels = self.bundle.image_shape
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        x = torch.empty(len(images), channels, height, width)
        x[slice(None) if rows is None else torch.from_numpy(rows)] = pixels.float()
        return x.mul_(self._factor).add_(self._offset)

    def _sent(self, images: NDArray[np.uint8], key: Key | None) -> Tensor:
        if key is not None and self.rows_per_image == 1:
            return self._first(self.inputs(images, key.rows), _shared(key))
        features = self.first(self.inputs(images))
        if key is None:
            return features
        patches = torch.empty_like(features)
        patches[torch.from_numpy(key.rows)] = features  # those of different images, and places, share a group
        return fo.group_mix(patches, _shared(key))

    def unmixed(self, outputs: NDArray[np.float32], key: Key | None) -> NDArray[np.float32]:
        """Scores [B, classes] of the cloud's reply [B, ...], image n in row n; without a key it is so already."""
        y = torch.from_numpy(outputs)
        with torch.inference_mode():
            if key is None:
                return self.last(y).numpy()
            rows = torch.from_numpy(key.rows)
            if self.rows_per_image == 1:
                return self._last(y, _shared(key))[rows].numpy()
            return self.last(fo.group_unmix(y, _shared(key))[rows]).numpy()


class TorchRequest(Request):
    """Made by `TorchHalf.mix`; see `facemix_ops.edge.request.Request`. Where nothing is mixed it has no key."""

    def __init__(self, half: TorchHalf, key: Key | None, payload: NDArray[Any], wire_dtype: str) -> None:
        super().__init__(key, payload, wire_dtype, half.bundle)
        self._half = half

    def _scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._half.unmixed(outputs, self._key)


def _shared(key: Key) -> fo.MixKey:
    """The key for PyTorch, in the same memory: what zeroes one zeroes both."""
    return fo.MixKey._wrap(torch.from_numpy(key.coeffs), torch.from_numpy(key.order))


def _on_the_wire(mixed: Tensor, wire_dtype: str, scales: NDArray[np.float32] | None) -> NDArray[Any]:
    """What is sent for float32 [B, C, H, W]; int8 takes the channels' scales [C]."""
    if wire_dtype == "int8":
        assert scales is not None  # see TorchHalf.mix
        steps = (mixed / torch.from_numpy(scales).view(-1, 1, 1)).round_().clamp_(-LARGEST, LARGEST)
        return steps.to(torch.int8).contiguous().numpy()
    if wire_dtype == "bfloat16":
        return mixed.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint16)
    return mixed.to(torch.float16 if wire_dtype == "float16" else torch.float32).contiguous().numpy()


def _parts(bundle: TorchBundle, weights: Mapping[str, Tensor]) -> tuple[fx.GraphModule, fx.GraphModule, int]:
    """The first and the last part, and the rows of an image between them. The whole network has shapes but no weights;
    the cloud's layers vanish with it.
    """
    channels_first = bundle.image_shape[2], *bundle.image_shape[:2]
    try:
        whole = build_bare(bundle.builder, bundle.options)
        first, _, last = partition(whole.eval().requires_grad_(False), bundle.pre, bundle.post)
        with torch.inference_mode():  # still without weights, and so without memory, whatever the file says
            rows, *features = first(torch.zeros(1, *channels_first, device="meta")).shape
            scores = last(torch.zeros(rows, *bundle.outputs_shape, device="meta")).shape
        owned = [part.state_dict() for part in (first, last)]
        if different := sorted((owned[0].keys() | owned[1].keys()) ^ weights.keys()):
            raise ValueError(f"{', '.join(different[:5])} missing or too many")
        for part, own in zip((first, last), owned, strict=True):
            if other := [name for name in own if weights[name].dtype != own[name].dtype]:
                raise ValueError(f"{other[0]} of {weights[other[0]].dtype}")
            part.load_state_dict({name: weights[name] for name in own}, assign=True)
    except (ValueError, RuntimeError, TypeError, OverflowError) as error:  # of networks and files
        raise BundleError(f"the weights must suit the network of the config, got {error}") from None
    if tuple(features) != bundle.features_shape:
        raise BundleError(f"features_shape must be {features}, got {list(bundle.features_shape)}")
    if rows * math.prod(features) > MAX_MAP:
        got = f"{rows} rows of {features}"
        raise BundleError(f"what is sent for an image must be of at most {MAX_MAP} values, got {got}")
    if len(scores) != 2 or (bundle.classes is not None and len(bundle.classes) != scores[1]):
        raise BundleError(f"classes must be a name for each score, or null, got scores of shape {list(scores[1:])}")
    if bundle.attributes is not None and (bundle.classes is not None or 2 * len(bundle.attributes) != scores[1]):
        got = f"{len(bundle.attributes)} for {scores[1]}{' and classes' * (bundle.classes is not None)}"
        raise BundleError(f"attributes must be a name for each two scores, without classes, got {got}")
    return first, last, rows
