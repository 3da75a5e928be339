"""From pixels to the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..rules import bad_type, bad_value
from .bundle import Bundle


class Preprocess:
    """(pixel / 255 - mean) / std, as one product and one sum; images [H, W, C] become planes [C, H, W]."""

    def __init__(self, bundle: Bundle) -> None:
        std = np.array(bundle.std)
        self._factor = (1 / (255 * std)).astype(np.float32)
        self._offset = (-np.array(bundle.mean) / std).astype(np.float32)

    def __call__(self, image: NDArray[np.uint8], planes: NDArray[np.float32]) -> None:
        """Writes `planes`; one at a time, so that it stays in cache between the two steps."""
        for channel, plane in enumerate(planes):
            np.multiply(image[..., channel], self._factor[channel], out=plane)
            plane += self._offset[channel]


def check_images(op: str, argument: str, images: Any, image_shape: tuple[int, int, int]) -> None:
    """uint8 [N, H, W, C], N >= 1, of any strides. Raises TypeError or ValueError."""
    if not isinstance(images, np.ndarray):
        bad_type(op, argument, "be a NumPy array", type(images).__name__)
    if images.dtype != np.uint8:
        bad_type(op, argument, "have dtype uint8", str(images.dtype))
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[1:] != tuple(image_shape):
        rule = f"have shape [N, {', '.join(map(str, image_shape))}] (height, width, channels), N >= 1"
        bad_value(op, argument, rule, f"{list(images.shape)}")
