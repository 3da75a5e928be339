"""The edge bundle: everything that the edge half of a network needs, in one safetensors file.

The pipeline writes it (``facemix.export.export_edge``). Tensors, float32 but for the decoys:

    first.weight [OC, C, KH, KW], first.bias [OC]    the first convolution, batch norm folded in
    last.weight [N, K], last.bias [N]                the last layer
    wire.scales [OC]                                 what 1 stands for in int8 on the wire; need not be there
    decoys [D, H, W, C], uint8                       public images; need not be there

and in the metadata a JSON config with the fields of `Bundle` that are no tensors. Of these, attributes need not be
there; who does not know them refuses a file that has them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rules import MAX_GROUP, MAX_WINDOW, MIN_GROUP, check_max_coeff
from . import safetensors
from .errors import BundleError
from .fields import Fields
from .wire import LARGEST, WIRE_DTYPES

__all__ = ["CONFIG_KEY", "KIND", "Bundle", "BundleError"]

CONFIG_KEY = "facemix"
FAMILY, VERSION = "facemix-edge-", 2
#: What the config says that it is; the number grows when the config changes.
KIND = f"{FAMILY}{VERSION}"

TENSORS = {"first.weight": 4, "first.bias": 1, "last.weight": 2, "last.bias": 1}  # and their dimensions
SCALES, DECOYS = "wire.scales", "decoys"
OPTIONAL = {SCALES: 1, DECOYS: 4}
MAX_NAME = 200
MAX_VERSION = 1 << 20
MAX_MAP = 1 << 27  # elements of a padded image, so that no offset in it overflows 32 bits
MIN_STD = 1e-6


@dataclass(frozen=True, eq=False)
class Bundle:
    """The edge half of a network, checked.

    Attributes:
        name, version: what the cloud calls the model.
        network: the fingerprint of the whole network; the cloud must serve the middle of the same.
        image_shape: (H, W, C) of an image.
        mean, std: of each channel, of pixels from 0 to 1: the network takes (pixel / 255 - mean) / std.
        weight: [OC, C, KH, KW]. bias: [OC].
        stride, padding, dilation: of the convolution, (vertical, horizontal).
        activation: None, "relu" or ("leaky_relu", slope).
        pool: ((KH, KW), stride, padding) of the max-pool behind the activation, or None.
        last_weight: [N, K]. last_bias: [N].
        group_size: S, images in a group.
        max_coeff: bound on the largest coefficient of a key, or None.
        wire_dtype: what to send where the caller does not say: "float32", "float16", "bfloat16" or "int8".
        classes: a name for each of the N scores, or None.
        scales: [OC], what 1 stands for in each channel of int8, or None: then int8 cannot be sent.
        decoys: uint8 [D, H, W, C], public images to fill groups with where the caller has no others; or None.
        attributes: a name for each two of the N scores, of no and of yes, where the network tells attributes; or None.
    """

    name: str
    version: int
    network: str
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    activation: str | tuple[str, float] | None
    pool: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None
    last_weight: NDArray[np.float32]
    last_bias: NDArray[np.float32]
    group_size: int
    max_coeff: float | None
    wire_dtype: str
    classes: tuple[str, ...] | None
    scales: NDArray[np.float32] | None = None
    decoys: NDArray[np.uint8] | None = None
    attributes: tuple[str, ...] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Read a bundle. A digest in it tells damage and careless changes; it is no signature: who can rewrite the
        file can rewrite the digest. Where that matters, keep the file where only you can write.

        Raises:
            OSError: if there is no such file, or it cannot be read.
            BundleError: if it is no bundle, was damaged or altered, or is newer than this version.
        """
        with open(path, "rb") as file:
            data = file.read()
        try:
            return cls.parse(data)
        except BundleError as error:
            raise BundleError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def parse(cls, data: bytes) -> Bundle:
        """The bundle in the bytes of a file.

        Raises:
            BundleError: see `load`.
        """
        contents = safetensors.parse(data)
        if CONFIG_KEY not in contents.metadata:
            raise BundleError(f"the metadata must have {CONFIG_KEY!r}, got {sorted(contents.metadata)[:8]}")
        config = safetensors.parse_json(contents.metadata[CONFIG_KEY], "the config")
        _check_kind(config.pop("kind", None))
        safetensors.check_digest(data, contents)
        return _build(Fields({"attributes": None, **config}), safetensors.tensors(data, contents, {DECOYS}))

    @property
    def conv_shape(self) -> tuple[int, int]:
        """Height and width behind the convolution."""
        return _windows(self.image_shape[:2], self._span, self.stride, self.padding)

    @property
    def features_shape(self) -> tuple[int, int, int]:
        """(OC, PH, PW): what is sent for an image."""
        size = self.conv_shape if self.pool is None else _windows(self.conv_shape, *self.pool)
        return len(self.bias), *size

    @property
    def outputs_shape(self) -> tuple[int]:
        """(K,): what comes back for it."""
        return (self.last_weight.shape[1],)

    def scaled(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight and bias in units of the scales, which must be there. A positive factor of a channel passes through
        the activation, the pool and the mix: a kernel makes int8 by rounding alone.
        """
        scales = np.asarray(self.scales)
        return self.weight / scales.reshape(-1, 1, 1, 1), self.bias / scales

    @property
    def _span(self) -> tuple[int, int]:
        kh, kw = self.weight.shape[2:]
        return self.dilation[0] * (kh - 1) + 1, self.dilation[1] * (kw - 1) + 1


def _check_kind(kind: Any) -> None:
    if kind == KIND:
        return
    number = kind.removeprefix(FAMILY) if isinstance(kind, str) and kind.startswith(FAMILY) else ""
    if number.isdecimal() and int(number[:9]) > VERSION:
        raise BundleError(
            f"the bundle must be of version {VERSION} at most, got {number[:9]}: a newer facemix wrote it; "
            f"upgrade this one: pip install --upgrade facemix"
        )
    raise BundleError(f"the kind must be {KIND!r}, got {str(kind)[:40]!r}")


def _build(fields: Fields, tensors: dict[str, NDArray[Any]]) -> Bundle:
    known = TENSORS | OPTIONAL
    for name in TENSORS.keys() | (tensors.keys() & OPTIONAL.keys()):
        ndim = known[name]
        if name not in tensors or tensors[name].ndim != ndim:
            got = list(tensors[name].shape) if name in tensors else "none"
            raise BundleError(f"tensor {name!r} must be there with {ndim} dimensions, got {got}")
    if extra := sorted(tensors.keys() - known.keys()):
        raise BundleError(f"the tensors must be {', '.join(known)}, got also {', '.join(map(repr, extra))[:80]}")
    image = fields.integers("image_shape", 3, 1)
    weight, last = tensors["first.weight"], tensors["last.weight"]
    bundle = Bundle(
        name=fields.text("name", MAX_NAME),
        version=fields.integer("version", 1, MAX_VERSION),
        network=fields.text("network", MAX_NAME),
        image_shape=image,
        mean=fields.numbers("mean", image[2]),
        std=fields.numbers("std", image[2]),
        weight=weight,
        bias=tensors["first.bias"],
        stride=fields.integers("stride", 2, 1),
        padding=fields.integers("padding", 2, 0),
        dilation=fields.integers("dilation", 2, 1),
        activation=fields.activation("activation"),
        pool=fields.pool("pool"),
        last_weight=last,
        last_bias=tensors["last.bias"],
        group_size=fields.integer("group_size", MIN_GROUP, MAX_GROUP),
        max_coeff=fields.optional_number("max_coeff"),
        wire_dtype=fields.choice("wire_dtype", tuple(WIRE_DTYPES)),
        classes=fields.texts("classes", len(last), MAX_NAME),
        scales=tensors.get(SCALES),
        decoys=tensors.get(DECOYS),
        attributes=fields.names("attributes", MAX_NAME),
    )
    fields.finish()
    _check(bundle)
    return bundle


def _check(b: Bundle) -> None:
    """What fields must be together."""

    def require(holds: bool, argument: str, rule: str, got: Any) -> None:
        if not holds:
            raise BundleError(f"{argument} must {rule}, got {got}")

    height, width, channels = b.image_shape
    padded = (height + 2 * b.padding[0], width + 2 * b.padding[1])
    require(b.weight.shape[1] == channels, "first.weight", f"have {channels} input channels", list(b.weight.shape))
    require(len(b.bias) == len(b.weight), "first.bias", f"have shape [{len(b.weight)}]", list(b.bias.shape))
    require(len(b.last_bias) == len(b.last_weight), "last.bias", f"have shape [{len(b.last_weight)}]",
            list(b.last_bias.shape))  # fmt: skip
    require(min(b.std) >= MIN_STD, "std", f"be at least {MIN_STD}", list(b.std))
    require(padded[0] * padded[1] * channels <= MAX_MAP, "a padded image", f"have at most {MAX_MAP} elements",
            [*padded, channels])  # fmt: skip
    for d in (0, 1):
        require(b._span[d] <= padded[d], "first.weight", f"span at most the padded image {padded}", b._span)
        require(b.stride[d] <= padded[d], "stride", f"be at most the padded image {padded}", b.stride)
    if b.pool is not None:
        kernel, stride, padding = b.pool
        require(kernel[0] * kernel[1] <= MAX_WINDOW, "the pool", f"have at most {MAX_WINDOW} elements", kernel)
        for d in (0, 1):
            size = b.conv_shape[d] + 2 * padding[d]
            require(2 * padding[d] <= kernel[d] <= size, "the pool",
                    "fit in the padded map, padded by at most half of it", b.pool)  # fmt: skip
            require(stride[d] <= size, "the pool's stride", "be at most the padded map", stride)
    require(b.scales is not None or b.wire_dtype != "int8", SCALES, "be there where int8 is sent", "none")
    if b.scales is not None:
        require(len(b.scales) == len(b.weight), SCALES, f"have shape [{len(b.weight)}]", list(b.scales.shape))
        require(b.scales.min() > 0, SCALES, "be positive", f"{b.scales.min():g}")
        with np.errstate(over="ignore"):
            derived = (*b.scaled(), LARGEST * b.scales)
        require(all(np.isfinite(part).all() for part in derived), SCALES, "leave weights and results finite",
                f"{b.scales.min():g} to {b.scales.max():g}")  # fmt: skip
    if b.decoys is not None:
        require(b.decoys.shape[1:] == b.image_shape, DECOYS, f"be images of {b.image_shape}", list(b.decoys.shape))
    if b.attributes is not None:
        require(b.classes is None, "classes", "be null where there are attributes", b.classes)
        require(2 * len(b.attributes) == len(b.last_weight), "attributes", "be a name for each two scores",
                f"{len(b.attributes)} for {len(b.last_weight)}")  # fmt: skip
    try:
        check_max_coeff("bundle", b.max_coeff, b.group_size)
    except ValueError as error:
        raise BundleError(str(error).removeprefix("bundle: ")) from None


def _windows(
    size: tuple[int, ...], window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """How many windows fit, vertically and horizontally."""
    height, width = ((size[d] + 2 * padding[d] - window[d]) // stride[d] + 1 for d in (0, 1))
    return height, width
