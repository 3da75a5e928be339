"""Figures of decisions against plain loops: unknown labels, absent classes, one class alone."""

from __future__ import annotations

import json
from statistics import mean
from typing import Any

import pytest
import torch
from facemix.data import UNKNOWN
from facemix.training.scores import attribute_score, identity_score
from torch import Tensor


def identities(count: int, classes: int, present: int, rounds: int) -> tuple[list[Tensor], Tensor]:
    """Decisions that are right for half of the images; only the last `present` people have any."""
    identity = torch.randint(classes - present, classes, (count,))
    hits = torch.rand(rounds, count) < 0.5
    return list(torch.where(hits, identity, torch.randint(classes, (rounds, count)))), identity


def looped_identity(rounds: list[Tensor], identity: Tensor, classes: int) -> dict[str, Any]:
    confusion = [[0] * classes for _ in range(classes)]
    for decided in rounds:
        for true, said in zip(identity.tolist(), decided.tolist(), strict=True):
            confusion[true][said] += 1
    shares = [mean(float(a == b) for a, b in zip(decided, identity, strict=True)) for decided in rounds]
    recalls = [line[person] / sum(line) for person, line in enumerate(confusion) if sum(line)]
    return {
        "accuracy": mean(shares),
        "rounds": shares,
        "balanced_accuracy": mean(recalls),
        "chance": 1 / classes,
        "confusion": confusion,
        "attributes": None,
    }


def looped_attributes(rounds: list[Tensor], attributes: dict[str, Tensor]) -> dict[str, Any]:
    tables = {name: [[0, 0], [0, 0]] for name in attributes}
    shares = []
    for decided in rounds:
        right = []
        for column, (name, values) in enumerate(attributes.items()):
            pairs = [(v, d) for v, d in zip(values.tolist(), decided[:, column].tolist(), strict=True) if v != UNKNOWN]
            for true, said in pairs:
                tables[name][true][said] += 1
            right += [mean(float(v == d) for v, d in pairs)] if pairs else []
        shares.append(mean(right))
    found = {}
    for name, table in tables.items():
        if total := sum(map(sum, table)):
            found[name] = {
                "accuracy": (table[0][0] + table[1][1]) / total,
                "balanced_accuracy": mean(table[v][v] / sum(table[v]) for v in (0, 1) if sum(table[v])),
                "positive_share": sum(table[1]) / total,
                "known": total // len(rounds),
                "confusion": table,
            }
    return {
        "accuracy": mean(shares),
        "rounds": shares,
        "balanced_accuracy": mean(of["balanced_accuracy"] for of in found.values()),
        "chance": mean(max(of["positive_share"], 1 - of["positive_share"]) for of in found.values()),
        "confusion": None,
        "attributes": found,
    }


def close(expected: Any) -> Any:
    """Floats to float64's rounding, at any depth; counts exactly."""
    if isinstance(expected, dict):
        return {key: close(value) for key, value in expected.items()}
    if isinstance(expected, list):
        return [close(value) for value in expected]
    return pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected


@pytest.mark.parametrize(
    ("count", "classes", "present", "rounds"), [(97, 7, 7, 3), (40, 11, 4, 1), (5, 2, 1, 2), (1, 13, 13, 1)]
)
def test_identity(count: int, classes: int, present: int, rounds: int) -> None:
    decided, identity = identities(count, classes, present, rounds)
    found = identity_score(decided, identity, classes)
    assert found == close(looped_identity(decided, identity, classes))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_a_person_who_is_only_decided_for_does_not_count_as_missed() -> None:
    found = identity_score([torch.tensor([0, 0, 2, 1])], torch.tensor([0, 0, 0, 1]), 3)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("rounds", [1, 3])
def test_attributes(rounds: int) -> None:
    count = 53
    attributes = {
        "all known": torch.randint(2, (count,), dtype=torch.int8),
        "some unknown": torch.randint(-1, 2, (count,), dtype=torch.int8),
        "nothing known": torch.full((count,), UNKNOWN, dtype=torch.int8),
        "always": torch.ones(count, dtype=torch.int8),
        "once": torch.tensor([UNKNOWN] * (count - 1) + [0], dtype=torch.int8),
    }
    decided = list(torch.randint(2, (rounds, count, len(attributes)), dtype=torch.int8))
    found = attribute_score(decided, attributes)
    assert found == close(looped_attributes(decided, attributes))
    assert "nothing known" not in found["attributes"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_one_attribute() -> None:
    values = torch.tensor([1, 0, 1, UNKNOWN, 1], dtype=torch.int8)
    found = attribute_score([torch.tensor([[1], [1], [1], [0], [0]], dtype=torch.int8)], {"glasses": values})
    assert found["accuracy"] == 0.5
    assert found["chance"] == 0.75
    assert found["attributes"]["glasses"] == close(
        {
            "accuracy": 0.5,
            "balanced_accuracy": (0 + 2 / 3) / 2,
            "positive_share": 0.75,
            "known": 4,
            "confusion": [[0, 1], [1, 2]],
        }
    )


def test_nothing_to_score() -> None:
    one = torch.zeros(1, 1, dtype=torch.int8)
    with pytest.raises(ValueError, match="scores: rounds must be one at least, got none"):
        identity_score([], torch.tensor([0]), 2)
    with pytest.raises(ValueError, match="scores: rounds must be one at least, got none"):
        attribute_score([], {"glasses": one[0]})
    for attributes in ({}, {"glasses": one[0] + UNKNOWN}):
        with pytest.raises(ValueError, match="scores: labels must be known for some images, got none"):
            attribute_score([one[:, : len(attributes)]], attributes)
    with pytest.raises(ValueError, match="scores: labels must be known for some images, got none"):
        identity_score([torch.empty(0, dtype=torch.int64)], torch.empty(0, dtype=torch.int64), 2)
