"""One request: what is sent, the key that mixed it, and what the reply means."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..rules import bad_type, bad_value
from . import kernels
from .bundle import Bundle
from .key import Key
from .result import Result, result_of
from .wire import check_finite, widened


class MixedRequest:
    """Made by `EdgeModel.mix`. A key is for one request and one reply: `classify` zeroes it, and so does the end of
    the ``with`` block, however it is left.

    Attributes:
        payload: [B, OC, PH, PW], what the cloud may see; contiguous. uint16 holds the bits of bfloat16.
        scales: float32 [B, OC], contiguous, to send along with int8: value = integer * scale, for each row and channel;
            None with the others. The same for all rows, so they tell nothing of them.
        wire_dtype: "float32", "float16", "bfloat16" or "int8".
    """

    def __init__(
        self, bundle: Bundle, key: Key, payload: NDArray[Any], wire_dtype: str, images: int, threads: int
    ) -> None:
        self.payload, self.wire_dtype = payload, wire_dtype
        self.scales: NDArray[np.float32] | None = None
        if wire_dtype == "int8" and bundle.scales is not None:
            self.scales = np.tile(bundle.scales, (len(payload), 1))
        self._bundle, self._key, self._images, self._threads = bundle, key, images, threads

    @property
    def closed(self) -> bool:
        """Whether the key was zeroed."""
        return self._key.closed

    def classify(self, reply: NDArray[Any]) -> Result:
        """Un-shuffle and un-mix the cloud's reply, and apply the last layer; zeroes the key.

        Args:
            reply: [B, K], as many rows as were sent; float32, float16, or uint16 for bfloat16; any strides.

        Raises:
            TypeError, ValueError: naming argument, rule and what came; the request stays open for a better reply,
                unless this one is so large that scores overflow.
        """
        op, bundle, key = "MixedRequest.classify", self._bundle, self._key
        if key.closed:
            bad_value(op, "the request", "be open", "a closed one: its key was zeroed")
        if not isinstance(reply, np.ndarray):
            bad_type(op, "reply", "be a NumPy array", type(reply).__name__)
        shape = (len(key.rows), bundle.last_weight.shape[1])
        if reply.shape != shape:
            bad_value(op, "reply", f"have shape {list(shape)}", f"{list(reply.shape)}")
        outputs = widened(op, "reply", reply)
        check_finite(op, "be finite", outputs)
        with self:
            scores = np.empty((shape[0], len(bundle.last_weight)), np.float32)
            kernels.unmix_linear(bundle, outputs, key, scores, self._threads)
            scores = scores[key.rows[: self._images]]
            check_finite(op, "leave scores finite", scores)
        return result_of(scores, bundle)

    def close(self) -> None:
        """Zero the key. What was sent stays."""
        self._key.close()

    def __enter__(self) -> MixedRequest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = f"{self.payload.dtype} {list(self.payload.shape)}"
        return f"MixedRequest(payload={rows}, wire_dtype={self.wire_dtype!r}{', closed' * self.closed})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("MixedRequest: it holds a key, which is private: it cannot be pickled or copied")
