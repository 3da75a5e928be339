"""What the cloud receives, as bytes that the page can draw."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["heat_maps"]

SHARE = 0.99  # of the values that the colours tell apart; the others have the strongest colour
TINY = 1e-12


def heat_maps(rows: NDArray[np.float32]) -> dict[str, Any]:
    """Quantise mixed rows [B, C, H, W] for display.

    Returns:
        shape: [B, C + 1, H, W]: map 0 of a row is the mean of its channels.
        values: base64 of int8, -127 to 127; each channel has its own scale, the same for all rows, with 0 at 0.
        strongest: the map, from 1, whose values vary most.
    """
    maps = np.concatenate((rows.mean(1, keepdims=True), rows), 1)
    limits = np.quantile(np.abs(maps), SHARE, axis=(0, 2, 3), keepdims=True)
    levels = np.rint(np.clip(maps / np.maximum(limits, TINY), -1, 1) * 127).astype(np.int8)
    return {
        "shape": list(levels.shape),
        "values": base64.b64encode(levels.tobytes()).decode(),
        "strongest": 1 + int(rows.std((0, 2, 3)).argmax()),
    }
