"""Decisions to figures: how many are right, over all and for each class or attribute alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_confusion_matrix, multiclass_confusion_matrix

from facemix.data import UNKNOWN

__all__ = ["attribute_score", "identity_score"]


def identity_score(rounds: Sequence[Tensor], identity: Tensor, classes: int) -> dict[str, Any]:
    """Figures of who was recognised, as JSON values.

    Args:
        rounds: the people decided for in each round, int64 [N], N >= 1.
        identity: who they are, int64 [N].
        classes: how many people there are to decide for.

    Returns:
        accuracy: share of decisions that are right, mean of `rounds`, the same for each round.
        balanced_accuracy: mean over people of the share of their photographs that is recognised; of the people who are
            in `identity`.
        chance: accuracy of guessing.
        confusion: how often [true] was taken for [decided], in all rounds.
        attributes: None.

    Raises:
        ValueError: if there are no rounds or no labels.
    """
    _check(rounds, len(identity))
    counts = torch.stack([multiclass_confusion_matrix(decided, identity, classes) for decided in rounds])
    return {
        **_accuracies(counts.diagonal(dim1=1, dim2=2).sum(1).double() / len(identity)),
        "balanced_accuracy": _balanced(counts.sum(0)),
        "chance": 1 / classes,
        "confusion": counts.sum(0).tolist(),
        "attributes": None,
    }


def attribute_score(rounds: Sequence[Tensor], attributes: Mapping[str, Tensor]) -> dict[str, Any]:
    """Figures of binary attributes, as JSON values. What is UNKNOWN counts neither as right nor as wrong, and an
    attribute of which nothing is known is left out.

    Args:
        rounds: the values decided for in each round, int8 [N, attributes], N >= 1; 1 for yes.
        attributes: the true values by name, in the order of the columns: int8 [N], 1, 0 or UNKNOWN.

    Returns:
        accuracy: mean over attributes of the share of decisions that are right, mean of `rounds`, the same for each
            round.
        balanced_accuracy: mean over attributes of theirs.
        chance: mean over attributes of the share of the commoner value: accuracy of who always says the same.
        confusion: None.
        attributes: by name "accuracy", "balanced_accuracy" (mean over the values that occur of the share recognised),
            "positive_share" and "known" of the true values, and "confusion" [[no as no, no as yes], [yes as no, yes as
            yes]] in all rounds.

    Raises:
        ValueError: if there are no rounds or no labels.
    """
    known = {name: int((values != UNKNOWN).sum()) for name, values in attributes.items()}
    _check(rounds, sum(known.values()))
    tables = {  # [rounds, 2, 2] each
        name: torch.stack(
            [binary_confusion_matrix(decided[:, column], values, ignore_index=UNKNOWN) for decided in rounds]
        )
        for column, (name, values) in enumerate(attributes.items())
        if known[name]
    }
    right = torch.stack(
        [table.diagonal(dim1=1, dim2=2).sum(1).double() / known[name] for name, table in tables.items()]
    )
    found = {name: _attribute(table.sum(0), known[name]) for name, table in tables.items()}
    shares = [of["positive_share"] for of in found.values()]
    return {
        **_accuracies(right.mean(0)),
        "balanced_accuracy": sum(of["balanced_accuracy"] for of in found.values()) / len(found),
        "chance": sum(max(share, 1 - share) for share in shares) / len(found),
        "confusion": None,
        "attributes": found,
    }


def _attribute(table: Tensor, known: int) -> dict[str, Any]:
    """Figures of one attribute of its [[tn, fp], [fn, tp]] in all rounds."""
    total = table.sum().double()
    return {
        "accuracy": (table.trace() / total).item(),
        "balanced_accuracy": _balanced(table),
        "positive_share": (table[1].sum() / total).item(),
        "known": known,
        "confusion": table.tolist(),
    }


def _accuracies(rounds: Tensor) -> dict[str, Any]:
    return {"accuracy": rounds.mean().item(), "rounds": rounds.tolist()}


def _balanced(table: Tensor) -> float:
    """Mean recall of the classes [true][decided] that there are."""
    support = table.sum(1).double()
    return (table.diagonal()[support > 0] / support[support > 0]).mean().item()


def _check(rounds: Sequence[Tensor], labels: int) -> None:
    if not rounds:
        raise ValueError("scores: rounds must be one at least, got none")
    if not labels:
        raise ValueError("scores: labels must be known for some images, got none")
