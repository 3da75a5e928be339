"""One request: what is sent, the key that mixed it, and what the reply means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from ..rules import bad_type, bad_value
from . import kernels
from .bundle import Bundle
from .key import Key
from .result import Result, result_of
from .wire import check_finite, widened


class Request(ABC):
    """What an edge made of images. A key is for one request and one reply: `classify` zeroes it, and so does the end of
    the ``with`` block, however it is left.

    Attributes:
        payload: [B, C, H, W], what the cloud may see; contiguous. uint16 holds the bits of bfloat16.
        scales: float32 [B, C], contiguous, to send along with int8: value = integer * scale, for each row and channel;
            None with the others. The same for all rows, so they tell nothing of them.
        wire_dtype: "float32", "float16", "bfloat16" or "int8".
        closed: whether the key, if there is one, was zeroed.
    """

    def __init__(
        self,
        key: Key | None,
        payload: NDArray[Any],
        wire_dtype: str,
        bundle: Any,
    ) -> None:
        self.payload, self.wire_dtype, self.closed = payload, wire_dtype, False
        self.scales: NDArray[np.float32] | None = None
        if wire_dtype == "int8" and bundle.scales is not None:
            self.scales = np.tile(bundle.scales, (len(payload), 1))
        self._key, self._bundle = key, bundle

    @abstractmethod
    def _scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, classes], in the order of the images, of what the cloud computed: [B, *outputs_shape]."""

    def classify(self, reply: NDArray[Any]) -> Result:
        """Un-shuffle and un-mix the cloud's reply, and apply the last part; zeroes the key.

        Args:
            reply: [B, ...], as many rows as were sent; float32, float16, or uint16 for bfloat16; any strides.

        Raises:
            TypeError, ValueError: naming argument, rule and what came; the request stays open for a better reply,
                unless this one is so large that scores overflow.
        """
        op = f"{type(self).__name__}.classify"
        if self.closed:
            bad_value(op, "the request", "be open", "a closed one: its key was zeroed")
        if not isinstance(reply, np.ndarray):
            bad_type(op, "reply", "be a NumPy array", type(reply).__name__)
        shape = (len(self.payload), *self._bundle.outputs_shape)
        if reply.shape != shape:
            bad_value(op, "reply", f"have shape {list(shape)}", f"{list(reply.shape)}")
        outputs = widened(op, reply)
        check_finite(op, "be finite", outputs)
        with self:
            scores = self._scores(outputs)
            check_finite(op, "leave scores finite", scores)
        return result_of(scores, self._bundle)

    def close(self) -> None:
        """Zero the key. What was sent stays."""
        self.closed = True
        if self._key is not None:
            self._key.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __repr__(self) -> str:
        rows = f"{self.payload.dtype} {list(self.payload.shape)}"
        return f"{type(self).__name__}(payload={rows}, wire_dtype={self.wire_dtype!r}{', closed' * self.closed})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(f"{type(self).__name__}: it holds a key, which is private: it cannot be pickled or copied")


class MixedRequest(Request):
    """Made by `EdgeModel.mix`; see `Request`."""

    def __init__(
        self, bundle: Bundle, key: Key, payload: NDArray[Any], wire_dtype: str, images: int, threads: int
    ) -> None:
        super().__init__(key, payload, wire_dtype, bundle)
        self._images, self._threads = images, threads

    def _scores(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._key is not None  # groups are of two or more
        scores = np.empty((len(outputs), len(self._bundle.last_weight)), np.float32)
        kernels.unmix_linear(self._bundle, outputs, self._key, scores, self._threads)
        return scores[self._key.rows[: self._images]]
