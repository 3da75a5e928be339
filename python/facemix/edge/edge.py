"""Classification in which the cloud does most of the work and sees mixtures only (paper, figure 3)."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import torch
from torch import Tensor

import facemix_ops as fo
from facemix.partition import Parts

from .halves import first_half, last_half
from .transport import CloudClient

__all__ = ["Answer", "Edge"]


@dataclass(frozen=True)
class Answer:
    """Scores, and what they cost.

    Attributes:
        scores: [N, classes], row by row those of the images.
        rows_sent: N, and the decoys that filled the last group.
        bytes_up, bytes_down: sizes of the request and of the answer.
        edge_seconds: computing time here: key, first layers, mix, un-mix, last layers.
        cloud_seconds: computing time there, by the cloud's own account.
        network_seconds: everything else: packing, sending, waiting, receiving.
    """

    scores: Tensor
    rows_sent: int
    bytes_up: int
    bytes_down: int
    edge_seconds: float
    cloud_seconds: float
    network_seconds: float


class Edge:
    """The edge half of a split network.

    Each request has a fresh `MixKey` from the operating system, which is closed (zeroed) however the request
    ends. Neither the key nor anything made of it but the mixtures themselves is sent, logged or kept.

    Which images share a group is drawn anew for each request, decoys included. The decoys' predictions are
    dropped. A cloud that has the public set of decoys may try to find them in the mixtures; they keep groups
    full, no more.

    Args:
        parts: the three parts of a plain, trained network; the middle is not used.
        client: the connection to the cloud that holds the middle.
        group_size: images in a group, 2 to 64; what the network was trained with.
        decoys: public images [D, C, H, W] of the same kind as those to classify, to fill a batch that does
            not divide into groups; None refuses such a batch.
        max_coeff: bound on the largest coefficient of the key, see `facemix_ops.MixKey.sample`.
    """

    def __init__(
        self,
        parts: Parts,
        client: CloudClient,
        *,
        group_size: int,
        decoys: Tensor | None = None,
        max_coeff: float | None = None,
    ) -> None:
        self._first, self._last = first_half(parts.edge_first.eval(), group_size), last_half(parts.edge_last.eval())
        self._client, self._group_size, self._decoys, self._max_coeff = client, group_size, decoys, max_coeff

    def classify(self, images: Tensor) -> Answer:
        """Classify `images` [N, C, H, W], N >= 1, normalised as in training.

        Raises:
            ValueError: if `images` is not such a tensor, or N does not divide into groups and there are no
                decoys.
            CloudError: if the cloud does not answer as it should.
        """
        if images.ndim != 4 or images.shape[0] < 1:
            raise ValueError(f"classify: images must have shape [N, C, H, W] with N >= 1, got {list(images.shape)}")
        start = time.perf_counter()
        batch, places = self._fill(images)
        with (
            torch.inference_mode(),
            fo.MixKey.sample(len(batch), self._group_size, max_coeff=self._max_coeff) as key,
        ):
            mixed = self._first(batch, key)
            sent = time.perf_counter()
            reply = self._client.infer(mixed.numpy())
            received = time.perf_counter()
            scores = self._last(torch.from_numpy(reply.outputs), key)[places]
        waited = received - sent
        return Answer(
            scores=scores.clone(),
            rows_sent=len(batch),
            bytes_up=reply.bytes_up,
            bytes_down=reply.bytes_down,
            edge_seconds=time.perf_counter() - start - waited,
            cloud_seconds=reply.cloud_seconds,
            network_seconds=max(0.0, waited - reply.cloud_seconds),
        )

    def _fill(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch of whole groups in a random order, and the rows of `images` in it, int64 [N]."""
        count = len(images)
        missing = -count % self._group_size
        if missing:
            if self._decoys is None or not len(self._decoys):
                raise ValueError(
                    f"classify: images must divide into groups of {self._group_size} when there are no "
                    f"decoys, got {count}"
                )
            if self._decoys.shape[1:] != images.shape[1:]:
                raise ValueError(
                    f"classify: images must have the decoys' shape {list(self._decoys.shape[1:])}, "
                    f"got {list(images.shape[1:])}"
                )
            chosen = [secrets.randbelow(len(self._decoys)) for _ in range(missing)]
            images = torch.cat((images, self._decoys[chosen]))
        order = list(range(len(images)))
        secrets.SystemRandom().shuffle(order)
        rows = torch.tensor(order)
        return images[rows], torch.argsort(rows)[:count]
