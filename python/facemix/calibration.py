"""What 1 stands for in each channel of int8 on the wire: found in mixtures of public images, under fresh keys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge import Bundle, EdgeModel
from facemix_ops.edge.wire import LARGEST

__all__ = ["mixtures", "scales"]

KEYS = 4  # times that all images are mixed, each time in other groups under a fresh key
VALUES = 1 << 16  # of a channel that are looked at, about
SHARES = np.geomspace(1, 0.1, 64)  # of the largest magnitude, tried as the end of the range


def scales(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each channel with the least mean square error of ``values`` rounded to its multiples, from -127 to
    127 times it.

    A range up to the largest value would spend its steps on a tail that is hardly ever used; one up to a percentile of
    the values cuts as much off a channel with a short tail as off one with a long one. benchmarks/wire_dtypes.py
    compares the three.

    Args:
        values: [C, n]. A channel that is zero throughout gets the range of the widest.
    """
    values = np.abs(values)
    largest = values.max(1)
    largest[largest == 0] = largest.max() or LARGEST
    tried = (largest[:, None] * SHARES / LARGEST).astype(np.float32)  # [C, tried]
    errors = np.stack([_error(values, scale[:, None]) for scale in tried.T], 1)
    return np.ascontiguousarray(np.take_along_axis(tried, errors.argmin(1)[:, None], 1)[:, 0])


def mixtures(bundle: Bundle, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the edge would send for ``images`` uint8 [N, H, W, C], N at least a group: values of each channel [C, n]."""
    draw = np.random.default_rng(0)  # of groups and pixels; keys come from the operating system as always
    channels, height, width = bundle.features_shape
    pixels = min(height * width, max(1, VALUES // (KEYS * len(images))))
    model, step = EdgeModel(bundle, decoys=images), 8 * bundle.group_size
    parts = []
    for _ in range(KEYS):
        order = draw.permutation(len(images))
        for first in range(0, len(images), step):
            with model.mix(images[order[first : first + step]], wire_dtype="float32") as request:
                rows = request.payload.reshape(len(request.payload), channels, -1)
            parts.append(rows[:, :, draw.choice(height * width, pixels, replace=False)])
    return np.concatenate(parts).transpose(1, 0, 2).reshape(channels, -1)


def _error(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of magnitudes [C, n], mean square of what rounding leaves."""
    return np.square(np.minimum(np.rint(values / scale), LARGEST) * scale - values).mean(1)
