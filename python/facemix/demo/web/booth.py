"""What the page asks for: faces to pick from, and what happens to those that were picked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facemix.data import Labelled, channels_last
from facemix.demo.recorder import Mixed
from facemix.edge import Answer, CloudError
from facemix.wire import DATATYPE_OF

from .heat import heat_maps
from .trip import Trip
from .words import HONESTY, in_words

__all__ = ["Booth"]

REQUEST_GROUPS = 5
SHOWN_SCORES = 3


class Booth:
    """The edge behind the page. Any number of threads may use it at once.

    Args:
        halves: the edge's half of each network, by a name; all take the same images.
        server: "host:port" of the cloud that serves their middles.
        train: where reference photographs and decoys come from.
        test: whom to pick from; disjoint from `train`, and of the same people.
    """

    def __init__(self, halves: Mapping[str, Any], server: str, train: Labelled, test: Labelled) -> None:
        known = train.labels("identity")
        self._halves, self._server = dict(halves), server
        self._bundle = next(iter(self._halves.values())).bundle
        self._test, self._decoys = channels_last(test.images), channels_last(train.images)
        self._identity = test.labels("identity").tolist()
        self._decoy_of = {image.tobytes(): row for row, image in enumerate(self._decoys)}
        self._references = [int((known == person).nonzero()[0, 0]) for person in range(train.people)]
        self.wire_dtypes = [name for name in DATATYPE_OF if self._can_send(name)]
        self.most = min(len(test), REQUEST_GROUPS * self._bundle.group_size)
        self._trips: dict[tuple[str, str], Trip] = {}
        self._lock, self._opened = threading.Lock(), ExitStack()

    def describe(self) -> dict[str, Any]:
        """What the page must know before anything is sent, as JSON values."""
        return {
            "people": self._identity,
            "most": self.most,
            "group_size": self._bundle.group_size,
            "image_shape": list(self._bundle.image_shape),
            "networks": list(self._halves),
            "wire_dtypes": self.wire_dtypes,
            "honesty": HONESTY,
        }

    def send(self, faces: Any, network: Any, wire_dtype: Any) -> Iterator[dict[str, Any]]:
        """Send test faces through the cloud, and return an iterator over what happens, as JSON values.

        Args:
            faces: numbers of 1 to `most` different test faces.
            network: one of `halves`.
            wire_dtype: one of `wire_dtypes`.

        Raises:
            ValueError: if an argument is not that.
        """
        count = len(self._test)
        if not isinstance(faces, list) or not all(type(face) is int and 0 <= face < count for face in faces):
            raise ValueError(f"send: faces must be a list of integers from 0 to {count - 1}")
        if not 1 <= len(faces) <= self.most or len(set(faces)) < len(faces):
            raise ValueError(f"send: faces must be 1 to {self.most} different ones, got {len(faces)}")
        for name, value, choices in (
            ("network", network, self._halves),
            ("wire_dtype", wire_dtype, self.wire_dtypes),
        ):
            if not isinstance(value, str) or value not in choices:
                raise ValueError(f"send: {name} must be one of {', '.join(choices)}")
        return self._send(faces, self._trip(network, wire_dtype))

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def __enter__(self) -> Booth:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _send(self, faces: list[int], trip: Trip) -> Iterator[dict[str, Any]]:
        for event in trip.send(self._test[faces]):
            match event:
                case Mixed():
                    yield {"event": "mixed", **self._mixed(event)}
                case Answer():
                    yield {"event": "answer", **self._answer(faces, event)}
                case CloudError():
                    yield {"event": "error", "text": in_words(event), "detail": str(event)}

    def _mixed(self, mixed: Mixed) -> dict[str, Any]:
        decoys = [self._decoy_of.get(image.tobytes()) for image in mixed.images]
        return {"decoys": [row for row in decoys if row is not None], **heat_maps(mixed.rows())}

    def _answer(self, faces: list[int], answer: Answer) -> dict[str, Any]:
        shares = np.exp(answer.scores - answer.scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        predictions = []
        for face, label, share in zip(faces, answer.labels.tolist(), shares, strict=True):
            best = share.argsort()[::-1][:SHOWN_SCORES].tolist()
            predictions.append(
                {
                    "face": face,
                    "label": label,
                    "right": label == self._identity[face],
                    "reference": self._references[label],
                    "scores": [[person, float(share[person])] for person in best],
                }
            )
        return {"predictions": predictions, "cost": asdict(answer.cost)}

    def _trip(self, network: str, wire_dtype: str) -> Trip:
        with self._lock:
            if (network, wire_dtype) not in self._trips:
                trip = Trip(
                    self._halves[network],
                    self._server,
                    decoys=self._decoys,
                    wire_dtype=wire_dtype,
                    request_groups=-(-self.most // self._bundle.group_size),
                )
                self._trips[network, wire_dtype] = self._opened.enter_context(trip)
            return self._trips[network, wire_dtype]

    def _can_send(self, wire_dtype: str) -> bool:
        """Whether the edge's halves can: int8 needs scales in their bundles."""
        images: NDArray[np.uint8] = self._decoys[: self._bundle.group_size]
        for half in self._halves.values():
            try:
                half.mix(images, wire_dtype=wire_dtype).close()
            except ValueError:
                return False
        return True
