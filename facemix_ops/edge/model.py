"""The edge half of a network: images -> what the cloud gets; the cloud's reply -> scores."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rules import bad_type, bad_value
from . import kernels
from .bundle import Bundle
from .grouping import decoys_for, digest, places
from .key import Key
from .preprocess import Preprocess, check_images
from .request import MixedRequest
from .wire import WIRE_DTYPES

__all__ = ["EdgeModel"]


class EdgeModel:
    """Runs the edge half of `bundle`. Any number of threads may use a model at once.

    Args:
        bundle: what to run.
        decoys: public images uint8 [D, H, W, C] of the same kind as those to classify, D >= 1, all different, to fill
            the last group of a request; default: those of the bundle. A request holds each once: S - 1 fill any group,
            and without any, the images must divide into groups. They keep groups full, no more: whoever has the set
            finds them in the mixtures, and so does a cloud that meets them in several requests (docs/security.md).
        threads: for the kernels, no more than there are cores; default: all of them.

    Raises:
        TypeError, ValueError: naming argument, rule and what came.
    """

    def __init__(self, bundle: Bundle, *, decoys: NDArray[np.uint8] | None = None, threads: int | None = None) -> None:
        if not isinstance(bundle, Bundle):
            bad_type("EdgeModel", "bundle", "be a Bundle (EdgeModel.load reads a file)", type(bundle).__name__)
        if decoys is not None:
            check_images("EdgeModel", "decoys", decoys, bundle.image_shape)
        self.bundle, self._threads = bundle, _checked_threads(threads)
        self._decoys: Any = bundle.decoys if decoys is None else decoys
        self._names = [] if self._decoys is None else [digest(decoy) for decoy in self._decoys]
        self._preprocess = Preprocess(bundle)
        self._scaled = None if bundle.scales is None else bundle.scaled()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        decoys: NDArray[np.uint8] | None = None,
        threads: int | None = None,
    ) -> EdgeModel:
        """The model in a file that the pipeline wrote (``facemix.export.export_edge``).

        Raises:
            OSError: if there is no such file, or it cannot be read.
            BundleError: a ValueError; if it is no bundle, was damaged or altered, or is newer than this version.
            TypeError, ValueError: as the constructor.
        """
        return cls(Bundle.load(path), decoys=decoys, threads=threads)

    def payload_shape(self, images: int) -> tuple[int, int, int, int]:
        """[B, OC, PH, PW] of the upload for so many images: B is the number of images, filled up to whole groups."""
        return images + -images % self.bundle.group_size, *self.bundle.features_shape

    def mix(
        self, images: NDArray[np.uint8], *, wire_dtype: str | None = None, out: NDArray[Any] | None = None
    ) -> MixedRequest:
        """Pre-process, convolve, mix with a fresh key and shuffle: all that happens before the upload.

        Which images share a group, and which decoys fill it up, follows from the images, whatever their order. So the
        same ones again are in the same groups; mixed again among others, or several times with keys that have a bound,
        they are given away (docs/security.md). So is one that is in `images` twice. Where sending fails, send the
        payload again.

        Args:
            images: uint8 [N, H, W, C], N >= 1, any strides.
            wire_dtype: "float32", "float16", "bfloat16", or "int8" where the bundle has scales; default: the bundle's.
            out: a buffer to reuse for the payload: shape `payload_shape(N)`, dtype float32, float16, uint16 for
                bfloat16, or int8; contiguous, aligned and writeable. Fresh memory is slow.

        Returns:
            The request, to be used as a context manager: its key is zeroed when the block ends.

        Raises:
            TypeError, ValueError: naming argument, rule and what came.
        """
        op, bundle = "EdgeModel.mix", self.bundle
        check_images(op, "images", images, bundle.image_shape)
        wire_dtype = bundle.wire_dtype if wire_dtype is None else wire_dtype
        if not isinstance(wire_dtype, str) or wire_dtype not in WIRE_DTYPES:
            bad_value(op, "wire_dtype", f"be one of {', '.join(WIRE_DTYPES)}", repr(wire_dtype))
        layer = self._layer(op, wire_dtype)
        shape = self.payload_shape(len(images))
        names = [digest(image) for image in images]
        decoys = decoys_for(names, self._names, shape[0] - len(images))
        if len(images) + len(decoys) < shape[0]:
            rule = f"divide into groups of {bundle.group_size}, or leave no more places than decoys fill, {len(decoys)}"
            bad_value(op, "images", rule, f"{len(images)}")
        payload = np.empty(shape, WIRE_DTYPES[wire_dtype]) if out is None else out
        _check_out(op, payload, shape, WIRE_DTYPES[wire_dtype], images)
        rows = places([*names, *(self._names[decoy] for decoy in decoys)])
        key = Key(rows, bundle.group_size, bundle.max_coeff)
        try:
            kernels.conv_mix(bundle, layer, self._features(images, decoys, rows), key, payload, self._threads)
        except BaseException:
            key.close()
            raise
        return MixedRequest(bundle, key, payload, wire_dtype, len(images), self._threads)

    def _layer(self, op: str, wire_dtype: str) -> kernels.Layer:
        """Weight and bias of the convolution, for int8 in units of the scales."""
        if wire_dtype != "int8":
            return self.bundle.weight, self.bundle.bias
        if self._scaled is None:
            rule = "be another for a bundle without scales (export_edge finds them in calibration images)"
            bad_value(op, "wire_dtype", rule, "'int8'")
        return self._scaled

    def _features(self, images: NDArray[np.uint8], decoys: list[int], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The network's input [B, C, H, W]: image n in row rows[n], and then the decoys."""
        height, width, channels = self.bundle.image_shape
        x = np.empty((len(rows), channels, height, width), np.float32)
        for n, row in enumerate(rows):
            image = images[n] if n < len(images) else self._decoys[decoys[n - len(images)]]
            self._preprocess(image, x[row])
        return x


def _checked_threads(threads: int | None) -> int:
    cores = os.cpu_count() or 1
    if threads is None:
        return cores
    if not isinstance(threads, int) or isinstance(threads, bool):
        bad_type("EdgeModel", "threads", "be an int", type(threads).__name__)
    if not 1 <= threads <= cores:
        bad_value("EdgeModel", "threads", f"be between 1 and the {cores} cores of this machine", f"{threads}")
    return threads


def _check_out(op: str, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], images: NDArray[np.uint8]) -> None:
    """A buffer that the kernel can write straight into."""
    if not isinstance(out, np.ndarray):
        bad_type(op, "out", "be a NumPy array", type(out).__name__)
    if out.dtype != dtype:
        bad_type(op, "out", f"have dtype {dtype} for this wire_dtype", str(out.dtype))
    if out.shape != shape:
        bad_value(op, "out", f"have shape {list(shape)}", f"{list(out.shape)}")
    flags = out.flags
    for holds, rule in ((flags.c_contiguous, "contiguous"), (flags.aligned, "aligned"), (flags.writeable, "writeable")):
        if not holds:
            bad_value(op, "out", f"be {rule}", "a buffer that is not")
    if np.may_share_memory(out, images):
        bad_value(op, "out", "not share memory with images", "an overlapping buffer")
