"""Replace the cloud part of a network by one matrix, and see what is lost."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import facemix_ops as fo
from facemix.cost import PartitionCost, partition_cost
from facemix.partition import Parts, partition

from .matrix import Matrix, fitted
from .trial import Trial, run_trial
from .verdict import verdict

__all__ = ["Collapse", "LowRank", "collapse"]

#: Points of accuracy that a matrix may lose and still be said to match the network.
MATCH = 1.0
#: Points of agreement that a reduced matrix may lose.
REDUCED = 1.0

BATCH = 256  # images that the layers after the matrix take at once


@dataclass(frozen=True)
class LowRank:
    """The matrix as a product of two thin ones.

    Attributes:
        rank: the smallest that loses no more than REDUCED points of agreement, found by bisection.
        multiply_adds: of both.
        accuracy, agreement: see `Collapse`.
        network: see `Collapse`.
    """

    rank: int
    multiply_adds: int
    accuracy: float
    agreement: float
    network: nn.Sequential


@dataclass(frozen=True)
class Collapse:
    """A network whose cloud part is one matrix, beside the network itself. Shares are from 0 to 1.

    Attributes:
        network: images -> scores: the edge's first part, the matrix, and what is not linear of the last part.
        images: that the matrix was made with.
        decisions: that the figures are of: an image's label, or one for each of its attributes.
        group_size: of the mix that the network was tested through; 1: none.
        shape: of the matrix, (outputs, inputs).
        chance: accuracy of who always decides for the commonest class, or for the commoner value of each attribute.
        accuracy: share of right decisions of the network, through the mix; of attributes, the mean of their shares.
        collapsed_accuracy: of the network with the matrix.
        agreement: share of decisions in which the two are of one mind.
        self_agreement: share in which the network is of one mind with itself under another key.
        relative_error: of the scores: norm of the difference over norm of the network's.
        cost: of the network that is cut.
        rest_multiply_adds: of the layers after the matrix.
        low_rank: None where no reduced matrix is cheaper.
    """

    network: nn.Sequential
    images: int
    decisions: int
    group_size: int
    shape: tuple[int, int]
    chance: float
    accuracy: float
    collapsed_accuracy: float
    agreement: float
    self_agreement: float
    relative_error: float
    cost: PartitionCost
    rest_multiply_adds: int
    low_rank: LowRank | None

    @property
    def matrix_multiply_adds(self) -> int:
        """Of the matrix, for one image."""
        return self.shape[0] * self.shape[1]

    @property
    def collapsed_multiply_adds(self) -> int:
        """Of all that the edge would compute with the matrix."""
        return self.cost.edge_first.multiply_adds + self.matrix_multiply_adds + self.rest_multiply_adds

    @property
    def bytes_saved(self) -> int:
        """That would not be sent there and back for an image, in float32."""
        return self.cost.edge_first.output_bytes + self.cost.cloud.output_bytes

    @property
    def lost(self) -> float:
        """Points of accuracy that the matrix loses."""
        return 100 * (self.accuracy - self.collapsed_accuracy)

    @property
    def learned(self) -> bool:
        """Whether the network is better than chance, by more than a match may lose."""
        return 100 * (self.accuracy - self.chance) > MATCH

    @property
    def matched(self) -> bool:
        """Whether the matrix does what the network has learned."""
        return self.learned and self.lost <= MATCH

    @property
    def verdict(self) -> str:
        """What follows, in a few sentences."""
        return verdict(self)

    def as_json(self) -> dict[str, Any]:
        """JSON values: the figures, "matched" and "verdict"."""
        low_rank = self.low_rank
        return {
            "images": self.images,
            "decisions": self.decisions,
            "group_size": self.group_size,
            "shape": list(self.shape),
            "chance": self.chance,
            "accuracy": self.accuracy,
            "collapsed_accuracy": self.collapsed_accuracy,
            "agreement": self.agreement,
            "self_agreement": self.self_agreement,
            "relative_error": self.relative_error,
            "matrix_multiply_adds": self.matrix_multiply_adds,
            "cloud_multiply_adds": self.cost.cloud.multiply_adds,
            "edge_multiply_adds": self.cost.edge_multiply_adds,
            "collapsed_multiply_adds": self.collapsed_multiply_adds,
            "bytes_saved": self.bytes_saved,
            "low_rank": None
            if low_rank is None
            else {name: getattr(low_rank, name) for name in ("rank", "multiply_adds", "accuracy", "agreement")},
            "matched": self.matched,
            "verdict": self.verdict,
        }


def collapse(
    network: nn.Module,
    images: Tensor,
    tested: Iterable[tuple[Tensor, Tensor]],
    *,
    pre: int | str = 1,
    post: int | str = 1,
    group_size: int = 1,
    max_coeff: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Collapse:
    """Put the mean derivative of the cloud part in its place, and test both on the same images.

    Such a matrix is one guess at a linear stand-in: where it matches the network, the network does not use what only a
    cloud can compute; where it does not match, another matrix might.

    Args:
        network: plain (not converted) and trained; it is left in eval mode.
        images: [N, C, H, W] as the network takes them, some hundreds of those that it was trained on, in a random
            order: consecutive ones share a group.
        tested: batches of images and labels that it was not trained on. Labels are int64 [B], classes; or int8
            [B, attributes], 1 or 0, for networks with two scores for each; negative: not known, and not counted.
        pre, post: the cut, see `partition`.
        group_size: images in a group, of the mix that the network was trained with; numbers of images must be multiples
            of it. 1: no mix.
        max_coeff: bound on the coefficients, see `facemix_ops.MixKey.sample`.
        seed: of the keys.
        progress: show a bar.

    Raises:
        ValueError: if there are no images or no labels, or they do not divide into groups.
    """
    if images.dim() != 4 or not len(images):
        raise ValueError(f"collapse: images must be [N, C, H, W] with N at least 1, got {list(images.shape)}")
    channels, height, width = images.shape[1:]
    network.eval()
    parts = Parts(*(part.eval() for part in partition(network, pre, post)))
    generator = torch.Generator().manual_seed(seed)

    def sample(batch: Tensor) -> fo.MixKey:
        key = fo.MixKey.sample(len(batch), group_size, max_coeff=max_coeff, generator=generator)
        return key.to(batch.device)

    mixed = group_size != 1
    with torch.no_grad():
        features = parts.edge_first(images)
    matrix = fitted(parts, features, sample(features) if mixed else None, progress)
    trial = run_trial(parts, matrix, tested, sample if mixed else None)
    batch = BATCH * (len(features) // len(images))
    scores = _scores(matrix, trial.outputs, batch)
    agreement = _agreement(trial, scores)
    cost = partition_cost(network, (channels, height, width), pre=pre, post=post, group_size=group_size)
    return Collapse(
        network=nn.Sequential(parts.edge_first, matrix.module()),
        images=len(images),
        decisions=trial.decisions,
        group_size=group_size,
        shape=(len(matrix.weight), matrix.weight.shape[1]),
        chance=trial.chance,
        accuracy=sum(map(trial.accuracy, trial.scores)) / len(trial.scores),
        collapsed_accuracy=trial.accuracy(scores),
        agreement=agreement,
        self_agreement=trial.agreement(trial.scores[0], trial.scores[-1]),
        relative_error=trial.relative_error(scores),
        cost=cost,
        rest_multiply_adds=cost.edge_last.multiply_adds if len(matrix.rest) else 0,
        low_rank=_low_rank(parts, matrix, trial, agreement - REDUCED / 100, batch),
    )


def _low_rank(parts: Parts, matrix: Matrix, trial: Trial, agreement: float, batch: int) -> LowRank | None:
    """The smallest rank that keeps at least this agreement, if it is cheaper than the whole matrix."""
    outputs, inputs = matrix.weight.shape
    ranks = range(1, -(-outputs * inputs // (outputs + inputs)))  # below this, two factors are cheaper than one matrix

    def scores(rank: int) -> Tensor:
        return _scores(matrix, matrix.reduced(trial.outputs, rank), batch)

    place = bisect.bisect_left(ranks, True, key=lambda rank: _agreement(trial, scores(rank)) >= agreement)
    if place == len(ranks):
        return None
    rank, found = ranks[place], scores(ranks[place])
    return LowRank(
        rank,
        rank * (outputs + inputs),
        trial.accuracy(found),
        _agreement(trial, found),
        nn.Sequential(parts.edge_first, matrix.module(rank)),
    )


def _scores(matrix: Matrix, outputs: Tensor, batch: int) -> Tensor:
    """Scores [N, scores] of what the matrix gave, on the CPU; batch: rows, those of whole images."""
    with torch.inference_mode():
        return torch.cat([matrix.rest(rows).cpu() for rows in outputs.split(batch)])


def _agreement(trial: Trial, scores: Tensor) -> float:
    return sum(trial.agreement(scores, others) for others in trial.scores) / len(trial.scores)
