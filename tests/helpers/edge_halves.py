"""Edge halves that can be looked into, and what they must find."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from bundles import CLASSES, FEATURES, GROUP, IMAGE, OUTPUTS, bundle_bytes, images, tensors
from facemix.edge import Answer
from numpy.typing import NDArray

from facemix_ops.edge import Bundle, EdgeModel, MixedRequest

__all__ = [
    "CLASSES",
    "DECOYS",
    "GROUP",
    "IMAGE",
    "MIDDLE",
    "ROW",
    "WatchedHalf",
    "check",
    "expected",
    "features",
    "images",
]

DECOYS = images(9, seed=99)
#: Bytes of a row of features in float32.
ROW = 4 * int(np.prod(FEATURES))

#: A linear middle.
MIDDLE = np.random.default_rng(7).standard_normal((int(np.prod(FEATURES)), OUTPUTS)) / 10


class WatchedHalf:
    """`EdgeModel` for the bundle of `bundles`, with all keys, copies of them, and all images that it mixed. Payloads it
    knows only while somebody else keeps them. int8 is what a half may do with it: every row and channel has a scale.
    """

    def __init__(self, **changes: Any) -> None:
        self._half = EdgeModel(Bundle.parse(bundle_bytes(**changes)), threads=1)
        self.bundle = self._half.bundle
        self.keys: list[Any] = []
        self.copies: list[tuple[bytes, bytes]] = []
        self.batches: list[NDArray[np.uint8]] = []
        self.payloads: list[weakref.ref[NDArray[Any]]] = []

    def mix(self, pictures: NDArray[np.uint8], *, wire_dtype: str) -> MixedRequest | QuantisedRequest:
        assert len(pictures) % GROUP == 0
        request = self._half.mix(pictures, wire_dtype="float32" if wire_dtype == "int8" else wire_dtype)
        key = request._key
        self.keys.append(key)
        self.copies.append((key.coeffs.tobytes(), key.order.tobytes()))
        self.batches.append(pictures)
        self.payloads.append(weakref.ref(request.payload))
        return QuantisedRequest(request) if wire_dtype == "int8" else request

    @property
    def wiped(self) -> bool:
        """Whether nothing is left of any key."""
        return all(not key.coeffs.any() and not key.order.any() and not key.rows.any() for key in self.keys)


class QuantisedRequest:
    """An int8 payload and its scales."""

    def __init__(self, request: MixedRequest) -> None:
        largest = np.abs(request.payload).max(axis=(2, 3))
        self.scales = np.maximum(largest, 1e-6).astype(np.float32) / 127
        self.payload = np.round(request.payload / self.scales[:, :, None, None]).astype(np.int8)
        self.classify, self.close = request.classify, request.close


def features(pictures: NDArray[np.uint8]) -> torch.Tensor:
    """What the half mixes of them, in float64, flat: convolution, ReLU."""
    weights = {name: torch.from_numpy(values).double() for name, values in tensors().items()}
    mean, std = torch.tensor([0.5, 0.4, 0.3]).double(), torch.tensor([0.25, 0.2, 0.3]).double()
    x = ((torch.from_numpy(pictures.copy()) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    return torch.conv2d(x, weights["first.weight"], weights["first.bias"], 2, 1).relu().flatten(1)


def expected(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Scores [N, classes] in float64: features, MIDDLE, last layer; nothing is mixed."""
    weight, bias = (torch.from_numpy(tensors()[f"last.{name}"]).double() for name in ("weight", "bias"))
    return (features(pictures) @ torch.from_numpy(MIDDLE) @ weight.T + bias).numpy()


def check(answer: Answer, pictures: NDArray[np.uint8], tolerance: float = 1e-4) -> None:
    """`answer` is that for `pictures`, in their order."""
    want = expected(pictures)
    assert answer.scores.dtype == np.float32
    assert answer.labels.dtype == np.int64
    np.testing.assert_allclose(answer.scores, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    np.testing.assert_array_equal(answer.labels, answer.scores.argmax(1))
    assert answer.names == [("ann", "ben", "cid", "dot")[label] for label in answer.labels]
