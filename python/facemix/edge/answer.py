"""What a call gives: predictions, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "Cost", "Meter", "Prediction"]


@dataclass(frozen=True)
class Cost:
    """What a call cost, failed attempts included.

    Attributes:
        images: of the caller.
        rows: sent in the attempts that succeeded: images without their duplicates, and decoys; of networks that cut
            images into patches, those.
        requests: mixed once, with a key each.
        attempts: how often requests were sent, the same bytes each time.
        messages: sent.
        bytes_up, bytes_down: sizes of the messages; HTTP/2 adds about a hundred bytes to each.
        edge_seconds: computing here: key, first layer, mix, un-mix, last layer.
        cloud_seconds: computing there, by the cloud's own account; 0 where it does not say.
        network_seconds: waiting for the cloud less what it computed: packing, sending, queueing, receiving. Where
            several requests run at once the three overlap, and may add up to more than the call took.
    """

    images: int
    rows: int
    requests: int
    attempts: int
    messages: int
    bytes_up: int
    bytes_down: int
    edge_seconds: float
    cloud_seconds: float
    network_seconds: float


class Prediction(NamedTuple):
    """What the network says of one image.

    Attributes:
        scores: float32 [classes], or [2 * attributes].
        label: the class with the highest score; None of a network that tells attributes.
        name: of that class; None where the bundle has no names.
        attributes: by name the network's probability of yes; None of a network that tells classes apart.
    """

    scores: NDArray[np.float32]
    label: int | None
    name: str | None
    attributes: dict[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of the images, in their order.

    Attributes:
        scores, labels, names, attributes: see `facemix_ops.edge.Result`.
        cost: see there.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: list[str] | None
    cost: Cost
    attributes: dict[str, NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Prediction:
        """What the network says of image `index`."""
        if self.attributes is not None:
            yes = {name: float(values[index]) for name, values in self.attributes.items()}
            return Prediction(self.scores[index], None, None, yes)
        name = None if self.names is None else self.names[index]
        return Prediction(self.scores[index], int(self.labels[index]), name)


@dataclass
class Meter:
    """Adds up the cost of a call while it runs.

    Attributes:
        batches: how long the cloud computed, in nanoseconds. Messages that it computed together report the same
            number, which counts once.
        waits: when (start, end) messages of a request were under way.
    """

    rows: int = 0
    attempts: int = 0
    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    edge_seconds: float = 0.0
    batches: set[int] = field(default_factory=set)
    waits: list[tuple[float, float]] = field(default_factory=list)

    def cost(self, images: int, requests: int) -> Cost:
        cloud = sum(self.batches) / 1e9
        return Cost(
            images=images,
            rows=self.rows,
            requests=requests,
            attempts=self.attempts,
            messages=self.messages,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            edge_seconds=self.edge_seconds,
            cloud_seconds=cloud,
            network_seconds=max(0.0, _covered(self.waits) - cloud),
        )


def _covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How long at least one of `intervals` lasts."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
