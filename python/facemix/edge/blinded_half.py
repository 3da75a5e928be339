"""An edge half whose mixed rows go out beneath one-time noise, see `blinding`."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge import Result
from facemix_ops.edge.wire import widened

from .blinders import Blinders
from .loading import check_half

__all__ = ["BlindedHalf", "BlindedRequest"]


class BlindedHalf:
    """`half`, blinded. It takes a row of the pool for each row that is mixed, decoys included.

    What un-mixing sees of a cloud that is linear but for a constant, such as biases add up to, comes without that
    constant: the mean over all keys of what it would see without blinding.

    Args:
        half: the edge's half of a network, see `facemix.edge.Client`.
        blinders: for that network.

    Attributes:
        bundle, rows_per_image: the half's.
        wire_dtype: the only one that it sends: what is un-blinded is a small difference.

    Raises:
        TypeError: if `half` is none.
        ValueError: if the two do not belong together.
    """

    wire_dtype = "float32"

    def __init__(self, half: Any, blinders: Blinders) -> None:
        check_half("BlindedHalf", half)
        bundle = half.bundle
        for what, ours, theirs in (
            ("network", bundle.network, blinders.network),
            ("features_shape", tuple(bundle.features_shape), blinders.features_shape),
        ):
            if ours != theirs:
                raise ValueError(f"BlindedHalf: {what} of the blinders must be the half's, {ours}, got {theirs}")
        self._half, self._blinders, self.bundle = half, blinders, bundle
        self.rows_per_image: int = getattr(half, "rows_per_image", 1)

    def mix(self, images: NDArray[np.uint8], *, wire_dtype: str = wire_dtype) -> BlindedRequest:
        """See the half's own.

        Raises:
            ValueError: also if another dtype than float32 is to be sent.
            BlindersError: if the pool cannot give as many rows.
        """
        if wire_dtype != self.wire_dtype:
            raise ValueError(f"BlindedHalf.mix: wire_dtype must be {self.wire_dtype!r}, got {wire_dtype!r}")
        request, blinding = self._half.mix(images, wire_dtype=wire_dtype), self._blinders.blinding
        try:
            payload = request.payload
            seeds, outputs = self._blinders.take(len(payload))
            for row, seed in zip(payload, seeds, strict=True):
                blinding.scale(row, blinding.share)
                row += (noise := blinding.rows([seed], row.shape)[0])
                noise.fill(0)
        except BaseException:
            request.close()
            raise
        return BlindedRequest(request, outputs, blinding.share)


class BlindedRequest:
    """Made by `BlindedHalf.mix`. `classify` and `close` zero the key, and the outputs of the secret rows.

    Attributes:
        payload, scales, wire_dtype: see `facemix_ops.edge.request.Request`.
    """

    scales = None

    def __init__(self, request: Any, outputs: NDArray[np.float32], share: float) -> None:
        self._request, self._outputs, self._share = request, outputs, share
        self.payload, self.wire_dtype = request.payload, request.wire_dtype

    @property
    def closed(self) -> bool:
        """Whether the secrets were zeroed."""
        return bool(self._request.closed)

    def classify(self, reply: NDArray[Any]) -> Result:
        """Take the secret rows' outputs off the cloud's reply, and do what `facemix_ops.edge.request.Request` does.

        Raises:
            TypeError, ValueError: as that does.
        """
        if isinstance(reply, np.ndarray) and reply.shape == self._outputs.shape:  # else the request refuses it
            with np.errstate(over="ignore", invalid="ignore"):  # the request refuses what is not finite
                reply = (widened("BlindedRequest.classify", reply) - self._outputs) / np.float32(self._share)
        result: Result = self._request.classify(reply)
        self.close()
        return result

    def close(self) -> None:
        """Zero the secrets. What was sent stays."""
        self._outputs.fill(0)
        self._request.close()

    def __enter__(self) -> BlindedRequest:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"BlindedRequest({self._request!r})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("BlindedRequest: it holds secrets: it cannot be pickled or copied")
