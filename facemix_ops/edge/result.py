"""What scores mean."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Names", "Result", "result_of"]


class Names(Protocol):
    """What a bundle says of the scores: they are of classes or, two each, of attributes."""

    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def attributes(self) -> tuple[str, ...] | None: ...


class Result(NamedTuple):
    """What the network says of the images, in their order.

    Attributes:
        scores: float32 [N, classes], or [N, 2 * attributes], for each attribute of no and of yes.
        labels: int64 [N], the class with the highest score; of attributes [N, attributes], 1 for yes.
        names: of those classes; None where the bundle has no names.
        attributes: by name float32 [N], the network's probability of yes; None where it tells classes apart.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: list[str] | None
    attributes: dict[str, NDArray[np.float32]] | None = None


def result_of(scores: NDArray[np.float32], names: Names) -> Result:
    """The result that `scores` [N, ...] stand for."""
    if names.attributes is None:
        labels = scores.argmax(1)
        return Result(scores, labels, None if names.classes is None else [names.classes[label] for label in labels])
    margins = scores[:, 1::2] - scores[:, ::2]
    # Softmax of two scores; of the negative side, so that no exponential overflows.
    least = np.exp(-np.abs(margins))
    yes = np.where(margins > 0, 1, least) / (1 + least)
    return Result(scores, (yes > 0.5).astype(np.int64), None, dict(zip(names.attributes, yes.T, strict=True)))
