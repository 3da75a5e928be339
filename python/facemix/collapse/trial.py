"""A network, and the matrix in the place of its middle, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import facemix_ops as fo
from facemix.partition import Parts

from .matrix import Matrix, through

__all__ = ["Trial", "run_trial"]

KEYS = 2  # that each image is mixed with, to see in how much the network agrees with itself


@dataclass(frozen=True)
class Trial:
    """What came out. Shares are of decisions whose label is known; of attributes, the mean of their shares.

    Attributes:
        scores: [N, scores] of the network, for each key.
        outputs: [N, outputs] of the matrix.
        labels: classes [N], or 1 and 0 [N, attributes]; negative: not known.
    """

    scores: list[Tensor]
    outputs: Tensor
    labels: Tensor

    @property
    def decisions(self) -> int:
        """How many labels are known."""
        return int((self.labels >= 0).sum())

    @property
    def chance(self) -> float:
        """The accuracy of who always decides for the commonest."""
        known = (self.labels >= 0).unsqueeze(-1)
        counts = (F.one_hot(self.labels.long().clamp(min=0)) * known).sum(0).double()  # [..., values]
        totals = counts.sum(-1)
        return (counts.amax(-1) / totals)[totals > 0].mean().item()

    def accuracy(self, scores: Tensor) -> float:
        """The share that is right."""
        return self._share(self._decide(scores) == self.labels)

    def agreement(self, scores: Tensor, others: Tensor) -> float:
        """The share in which two kinds of scores lead to the same."""
        return self._share(self._decide(scores) == self._decide(others))

    def relative_error(self, scores: Tensor) -> float:
        """Norm of the difference from the network's scores over the norm of these, of images with a known label."""
        rows = (self.labels >= 0).reshape(len(self.labels), -1).any(1)
        expected = torch.stack(self.scores)[:, rows].double()
        return ((scores[rows] - expected).norm() / expected.norm()).item()

    def _decide(self, scores: Tensor) -> Tensor:
        """The class with the highest score; for each attribute, the higher of its two."""
        if self.labels.dim() == 1:
            return scores.argmax(1)
        return scores.reshape(*self.labels.shape, 2).argmax(2)

    def _share(self, true: Tensor) -> float:
        known = self.labels >= 0
        totals = known.sum(0).double()
        return ((true & known).sum(0) / totals)[totals > 0].mean().item()


def run_trial(
    parts: Parts,
    matrix: Matrix,
    batches: Iterable[tuple[Tensor, Tensor]],
    sample: Callable[[Tensor], fo.MixKey] | None,
) -> Trial:
    """Compute all scores.

    Args:
        parts: of the network, in eval mode.
        matrix: for the middle.
        batches: images and labels.
        sample: gives a fresh key for features; None: no mix.

    Raises:
        ValueError: if no label is known.
    """
    scores: list[list[Tensor]] = []
    outputs: list[Tensor] = []
    labels: list[Tensor] = []
    with torch.inference_mode():
        for images, of_images in batches:
            features = parts.edge_first(images)
            keys = [None] if sample is None else [sample(features) for _ in range(KEYS)]
            scores.append([parts.edge_last(through(parts.cloud, features, key)).cpu() for key in keys])
            outputs.append(matrix.outputs(features))
            labels.append(of_images.cpu())
    if not any((batch >= 0).any() for batch in labels):
        raise ValueError("collapse: tested must have images with labels, got none")
    by_key = [torch.cat(of_key) for of_key in zip(*scores, strict=True)]
    return Trial(by_key, torch.cat(outputs), torch.cat(labels))
