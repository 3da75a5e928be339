"""An edge half that lets others see what it mixes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facemix.wire.features import as_float32

__all__ = ["Mixed", "Recorder"]


class Mixed(NamedTuple):
    """A request on its way to the cloud.

    Attributes:
        images: uint8 [B, H, W, C], decoys included.
        payload: [B, C, H, W] in the dtype of the wire, mixed and shuffled.
        scales: float32 [B, C] for int8, else None.
    """

    images: NDArray[np.uint8]
    payload: NDArray[Any]
    scales: NDArray[np.float32] | None

    def rows(self) -> NDArray[np.float32]:
        """The mixed rows [B, C, H, W] as the cloud understands them."""
        values = as_float32(self.payload)
        return values if self.scales is None else values * self.scales[:, :, None, None]


class Recorder:
    """An edge half such as `facemix_ops.edge.EdgeModel`, and one who is told of everything that it mixes.

    The key is not recorded. The payload is not copied either: nobody writes to it once it is mixed.

    Attributes:
        listen: called with what was mixed; None: nobody listens.
    """

    def __init__(self, half: Any) -> None:
        self._half, self.bundle = half, half.bundle
        self.listen: Callable[[Mixed], None] | None = None

    def mix(self, images: NDArray[np.uint8], *, wire_dtype: str) -> Any:
        """See `EdgeModel.mix`."""
        request = self._half.mix(images, wire_dtype=wire_dtype)
        if self.listen is not None:
            self.listen(Mixed(images, request.payload, request.scales))
        return request
