"""What is asked of the scores: who it is, or yes or no for each attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from facemix.data import UNKNOWN

from .scores import attribute_score, identity_score

__all__ = ["AttributeTask", "IdentityTask", "Task"]


@dataclass(frozen=True)
class IdentityTask:
    """Scores [B, people], labels int64 [B]; `names` of the people, by number, or None: then they go by number."""

    people: int
    names: tuple[str, ...] | None = None
    name: Literal["identity"] = "identity"

    @property
    def outputs(self) -> int:
        """Scores of an image."""
        return self.people

    @property
    def labels(self) -> list[str]:
        """A name for each person."""
        return list(self.names or map(str, range(self.people)))

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, mean over the batch."""
        return F.cross_entropy(scores, labels)

    def distillation(self, scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence from the teacher's softened scores (Hinton et al. 2015), mean over the batch."""
        return _divergence(scores, teacher, temperature)

    def decide(self, scores: Tensor) -> Tensor:
        """int64 [B], the person."""
        return scores.argmax(1)

    def words(self, decided: Tensor) -> list[str]:
        """Decisions, or labels, [B], in words."""
        return [f"person {person}" if self.names is None else self.names[person] for person in decided.tolist()]

    def score(self, rounds: Sequence[Tensor], labels: Tensor) -> dict[str, Any]:
        """Figures of the decisions of each round [N]."""
        return identity_score(rounds, labels, self.people)


@dataclass(frozen=True)
class AttributeTask:
    """Scores [B, 2 * attributes], a two-way head each; labels int8 [B, attributes], UNKNOWN where nobody can tell."""

    names: tuple[str, ...]
    name: Literal["attributes"] = "attributes"

    @property
    def outputs(self) -> int:
        """Scores of an image."""
        return 2 * len(self.names)

    @property
    def labels(self) -> list[str]:
        """The attributes' names."""
        return list(self.names)

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, mean over batch and attributes; what is not known counts as zero, so that a batch's loss is
        the mean of its parts' losses.
        """
        heads = scores.float().view(*labels.shape, 2).movedim(2, 1)
        sums = F.cross_entropy(heads, labels.long(), ignore_index=UNKNOWN, reduction="sum")
        return sums / labels.numel()

    def distillation(self, scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """As `IdentityTask.distillation`, mean over the heads too."""
        return _divergence(scores.reshape(-1, 2), teacher.reshape(-1, 2), temperature)

    def decide(self, scores: Tensor) -> Tensor:
        """int8 [B, attributes], 1 for yes."""
        return scores.view(len(scores), -1, 2).argmax(2).to(torch.int8)

    def words(self, decided: Tensor) -> list[str]:
        """Decisions, or labels, [B, attributes], in words: the attributes that an image has."""
        return [
            ", ".join(name for name, value in zip(self.names, row, strict=True) if value == 1) or "none"
            for row in decided.tolist()
        ]

    def score(self, rounds: Sequence[Tensor], labels: Tensor) -> dict[str, Any]:
        """Figures of the decisions of each round [N, attributes]."""
        columns: Mapping[str, Tensor] = dict(zip(self.names, labels.unbind(1), strict=True))
        return attribute_score(rounds, columns)


Task = IdentityTask | AttributeTask


def _divergence(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    soft = F.log_softmax(scores.float() / temperature, 1), F.log_softmax(teacher.float() / temperature, 1)
    return temperature**2 * F.kl_div(*soft, reduction="batchmean", log_target=True)
