"""Synthetic faces: people, 40 attributes that show, and the same pictures each time."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from facemix.data import Labelled, synthetic_faces
from facemix.data.canvas import Canvas
from facemix.data.cartoon import MEASURES, draw_faces
from facemix.data.synthetic import ATTRIBUTES, NEEDS_HAIR
from torch import Tensor


@pytest.fixture(scope="module")
def many() -> Labelled:
    """300 people in colour, four photographs each."""
    return synthetic_faces(people=300, photos=4, size=(28, 23), channels=3)


def test_same_seed_same_bits() -> None:
    first, again, other = (synthetic_faces(seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.images, again.images)
    assert all(torch.equal(first.attributes[name], again.attributes[name]) for name in ATTRIBUTES)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("size", [(16, 16), (31, 47), (1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_labels(size: tuple[int, int], channels: int) -> None:
    faces = synthetic_faces(people=4, photos=9, size=size, channels=channels)
    assert faces.images.shape == (36, channels, *size)
    assert faces.images.dtype == np.uint8
    assert faces.images.std() > 10
    assert faces.people == 4
    assert faces.identity.tolist() == [row // 9 for row in range(36)]


def test_as_many_photographs_as_one_asks_for_are_drawn_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    together = synthetic_faces(people=3, photos=3, size=(8, 8))
    monkeypatch.setattr("facemix.data.synthetic.AT_ONCE", 4 * 64)
    apart = synthetic_faces(people=3, photos=3, size=(8, 8))
    assert apart.images.shape == together.images.shape
    assert apart.images.std((1, 2, 3)).min() > 10  # none was left out


def test_drawn_once_where_they_are_kept(tmp_path: Path) -> None:
    first = synthetic_faces(people=2, photos=3, folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    time = kept.stat().st_mtime_ns
    again = synthetic_faces(people=2, photos=3, folder=tmp_path)
    assert kept.stat().st_mtime_ns == time
    for faces in (first, again):
        np.testing.assert_array_equal(faces.images, synthetic_faces(people=2, photos=3).images)
    synthetic_faces(people=2, photos=3, seed=1, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_people_look_like_themselves(many: Labelled) -> None:
    """The photograph that is nearest to another is of the same person much more often than by chance."""
    images = many.floats().flatten(1)
    distance = torch.cdist(images, images).fill_diagonal_(torch.inf)
    same = many.identity[distance.argmin(1)] == many.identity
    assert same.float().mean() > 20 * 3 / 1199


def test_forty_attributes_neither_rare_nor_common(many: Labelled) -> None:
    assert len(ATTRIBUTES) == len(many.attributes) == 40
    for name, values in many.attributes.items():
        assert set(values.tolist()) == {0, 1}
        assert 0.1 <= values.float().mean() <= 0.6, name
    of_person = [name for name, values in many.attributes.items() if (values.view(300, 4).unique(dim=1).shape[1]) == 1]
    assert {"bald", "black_hair", "big_nose"} <= set(of_person)
    assert not {"eyeglasses", "smiling", "hat"} & set(of_person)
    hair = torch.stack([many.attributes[f"{name}_hair"] for name in ("black", "blond", "gray")])
    assert hair.sum(0).max() == 1
    assert all(not (many.attributes[name] & many.attributes["bald"]).any() for name in NEEDS_HAIR)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_attribute_shows(channels: int) -> None:
    """Whatever else is on a face: pixels change by more than the noise when it is flipped."""
    count, random = 30, torch.Generator().manual_seed(0)
    labels = synthetic_faces(people=count, photos=1, size=(1, 1)).attributes
    measures = {
        name: (low + (high - low) * torch.rand(count, 1, 1, generator=random)) for name, (low, high) in MEASURES.items()
    }

    def drawn(flipped: str | None) -> Tensor:
        attributes = {name: (value ^ (name == flipped)).float().view(-1, 1, 1) for name, value in labels.items()}
        grey, still = torch.full((count, channels, 1, 1), 0.3), torch.zeros(count)
        canvas = Canvas((56, 46), grey, torch.zeros(count, 2), still, still + 1)
        draw_faces(canvas, measures, attributes)
        return canvas.pixels

    before = drawn(None)
    assert torch.equal(before, drawn(None))
    for name in ATTRIBUTES:
        changed = ((drawn(name) - before).abs().amax(1) > 0.05).sum((1, 2))
        able = (labels["bald"] == 0) | (name not in NEEDS_HAIR)
        assert (changed[able] >= 3).float().mean() > 0.8, (name, changed)


def test_attributes_can_be_learned(many: Labelled) -> None:
    """By a linear model of so few pixels, for people whom it has not seen; a network finds more."""
    seen = torch.arange(len(many)) < 900
    images, labels = many.floats().flatten(1).double(), many.labels("attributes").double()
    images, mean = images - images[seen].mean(0), labels[seen].mean(0)
    inner = images @ images[seen].T
    found = inner @ torch.linalg.solve(inner[seen] + 3 * torch.eye(900), labels[seen] - mean) > 0
    has = labels.bool()
    recall = [
        (found[~seen] == has[~seen])[has[~seen][:, n] == value, n].float().mean() for n in range(40) for value in (0, 1)
    ]
    balanced = torch.stack(recall).view(40, 2).mean(1)
    assert balanced.mean() > 0.7
    assert (balanced > 0.6).sum() >= 30


def test_refusals_say_what_came() -> None:
    with pytest.raises(ValueError, match=re.escape("synthetic_faces: people must be at least 1, got 0")):
        synthetic_faces(people=0)
    with pytest.raises(ValueError, match=re.escape("synthetic_faces: channels must be 1 or 3, got 2")):
        synthetic_faces(channels=2)
