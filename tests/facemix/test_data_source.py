"""From settings to photographs, for each source; and settings that do not suit it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_sets import ATTRIBUTES, celeba, lfwa, picture
from facemix.data import Labelled, load_orl, open_data, synthetic_faces
from facemix.data.labelled import split_rows
from facemix.training.experiment import task_of
from facemix.training.settings import DataSettings, Experiment


def settings(folder: Path, source: str, **rest: Any) -> DataSettings:
    return DataSettings(**{"source": source, "cache": folder / "cache", "size": (12, 10), "root": folder, **rest})


def folder_of(root: Path, people: list[str], header: str = "image,identity,glasses,hat") -> Path:
    for row, person in enumerate(people):
        picture(root / f"{row}.png", row, (24, 20))
        line = {"image": f"{row}.png", "identity": person, "glasses": row % 2, "hat": row % 3 % 2}
        with (root / "labels.csv").open("a", newline="") as file:
            if not row:
                file.write(header + "\n")
            csv.DictWriter(file, header.split(","), extrasaction="ignore").writerow(line)
    return root / "labels.csv"


def test_orl_has_the_split_of_all_figures(tmp_path: Path) -> None:
    splits = open_data(settings(tmp_path, "orl", size=(28, 23), validation_share=0.3))
    for name, expected in zip(("train", "test"), load_orl((28, 23)), strict=True):
        part = getattr(splits, name)
        if name == "train":  # five of seven photographs
            first, second = split_rows(280, expected.identity, 0.7, 0)
            validation, expected = expected.take(second), expected.take(first)
            np.testing.assert_array_equal(splits.validation.images, validation.images)
        np.testing.assert_array_equal(part.images, expected.images)
        assert part.images.dtype == np.uint8
        assert torch.equal(part.identity, expected.identity)
        assert all(torch.equal(part.attributes[key], value) for key, value in expected.attributes.items())
    assert splits.train.identity.bincount().tolist() == [5] * 40
    assert splits.validation.identity.bincount().tolist() == [2] * 40


def test_synthetic(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "synthetic", people=5, photos=10, channels=3, test_share=0.2, validation_share=0.25)
    splits = open_data(chosen)
    assert [len(part) for part in splits] == [30, 10, 10]
    assert splits.train.images.shape == (30, 3, 12, 10)
    assert splits.train.images.std() > 10  # of 0 to 255
    again, other = (open_data(settings(tmp_path, "synthetic", split_seed=seed)).train.images for seed in (0, 1))
    assert not np.array_equal(again, other)


def test_the_seed_of_the_split_draws_the_validation_set_too(tmp_path: Path) -> None:
    """Of ORL, whose test set is given."""
    of = [
        open_data(settings(tmp_path, "orl", size=(28, 23), validation_share=0.3, split_seed=seed)) for seed in (0, 0, 1)
    ]
    assert np.array_equal(of[0].validation.images, of[1].validation.images)
    assert not np.array_equal(of[0].validation.images, of[2].validation.images)
    assert np.array_equal(of[0].test.images, of[2].test.images)


def test_celeba_has_a_validation_set_of_its_own(tmp_path: Path) -> None:
    celeba(tmp_path, [3, 4, 3, 8, 5, 4], [0, 0, 0, 1, 2, 0])
    splits = open_data(settings(tmp_path, "celeba", task="attributes", attributes=["Young", "Eyeglasses"], channels=3))
    assert [len(part) for part in splits] == [4, 1, 1]
    assert list(splits.train.attributes) == ["Young", "Eyeglasses"]
    assert splits.train.images.shape == (4, 3, 12, 10)
    with pytest.raises(ValueError, match=r"everybody in the validation set must be .* got 1 of 1 people who are not"):
        open_data(settings(tmp_path, "celeba"))


def test_strangers_in_the_test_set_have_no_identity_to_learn(tmp_path: Path) -> None:
    celeba(tmp_path, [3, 4, 3, 8, 5, 4], [0, 0, 0, 0, 2, 0])
    with pytest.raises(ValueError, match=r"everybody in the test set must be .* got 1 of 1 people who are not"):
        open_data(settings(tmp_path, "celeba"))


def test_lfwa_gives_some_of_its_training_photographs(tmp_path: Path) -> None:
    lfwa(tmp_path, {"Ann_Bee": 4, "Cid_Dot": 4}, [1, 2, 3, 4, 5], [6, 7, 8])
    splits = open_data(settings(tmp_path, "lfwa", task="attributes", validation_share=0.25))
    assert [len(part) for part in splits] == [4, 1, 3]
    assert list(splits.train.attributes) == ATTRIBUTES
    assert splits.validation.identity.tolist() == [0]
    assert len(open_data(settings(tmp_path, "lfwa")).test) == 3


def test_a_folder_is_split_by_people_where_they_are_known(tmp_path: Path) -> None:
    labels = folder_of(tmp_path, ["Ann"] * 4 + ["Bee"] * 4 + ["Cid"])
    splits = open_data(settings(tmp_path, "folder", labels=labels, test_share=0.25))
    assert splits.train.identity.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert splits.test.identity.tolist() == [0, 1]
    assert (splits.train.people, splits.validation.people, len(splits.validation)) == (3, 0, 0)
    as_text = {"root": str(tmp_path), "labels": str(labels), "cache": str(tmp_path / "cache")}
    again = open_data(settings(tmp_path, "folder", test_share=0.25, **as_text))  # as a program may have it
    assert again.train.digest() == splits.train.digest()
    task = task_of(Experiment(), splits)
    assert task.labels == ["Ann", "Bee", "Cid"]
    assert task.words(splits.test.identity) == ["Ann", "Bee"]


def test_a_folder_without_people(tmp_path: Path) -> None:
    labels = folder_of(tmp_path, ["?"] * 8, "image,hat,glasses")
    splits = open_data(settings(tmp_path, "folder", labels=labels, task="attributes", test_share=0.25))
    assert [len(part) for part in splits] == [6, 0, 2]
    assert splits.train.identity is None
    assert list(splits.train.attributes) == ["hat", "glasses"]
    with pytest.raises(ValueError, match="people must be known for task 'identity'"):
        open_data(settings(tmp_path, "folder", labels=labels))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"attributes": ["hat", "beard"]}, "must be of glasses, hat .*'folder'.*, got 'beard'"),
        ({"task": "attributes", "attributes": []}, "there must be attributes for task 'attributes', got none"),
        ({"labels": None}, "labels must be given for source 'folder', got none"),
        ({"source": "celeba", "root": None}, "root must be given for source 'celeba', got none"),
        ({"test_share": 1.0}, "test_share must be between 0 and 1, exclusive, got 1.0"),
        ({"validation_share": 1.0}, "validation_share must be at least 0 and below 1, got 1.0"),
        ({"test_share": 0.1}, "photographs to train on and to test on, got 6 and 0"),
        ({"test_share": 0.9, "task": "attributes"}, "photographs to train on and to test on, got 0 and 6"),
    ],
)
def test_settings_that_do_not_suit(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    labels = folder_of(tmp_path, ["Ann"] * 3 + ["Bee"] * 3)
    with pytest.raises(ValueError, match=f"open_data: .*{text}"):
        open_data(settings(tmp_path, **{"source": "folder", "labels": labels, **change}))


def test_labelled() -> None:
    part = Labelled(np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2), torch.tensor([0, 2, 0]), {"hat": torch.ones(3)})
    taken = part.take(torch.tensor([2, 1]))
    assert taken.images[:, 0, 0, 0].tolist() == [8, 4]
    assert (taken.identity.tolist(), taken.people, len(taken)) == ([0, 2], 3, 2)
    assert Labelled(part.images).people == 0


@pytest.mark.parametrize("known", [True, False])
def test_split_is_of_each_person_and_keeps_labels_with_images(known: bool) -> None:
    part = Labelled(
        np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1),
        torch.arange(3).repeat(10) if known else None,
        {"hat": torch.arange(30, dtype=torch.int8)},
    )
    first, second = part.split(0.7, seed=0)
    assert (len(first), len(second)) == (21, 9)
    if known:
        assert first.identity.bincount().tolist() == [7] * 3
    for half in (first, second):
        rows = half.images.flatten().tolist()
        assert rows == sorted(rows) == half.attributes["hat"].tolist()
        assert not known or half.identity.tolist() == [row % 3 for row in rows]
    assert sorted([*first.images.flatten(), *second.images.flatten()]) == list(range(30))
    assert not np.array_equal(part.split(0.7, seed=1)[0].images, first.images)
    with pytest.raises(ValueError, match=r"split: share must be between 0 and 1, exclusive, got 1\.5"):
        part.split(1.5, seed=0)


def test_labels_of_a_task() -> None:
    part = Labelled(np.zeros((2, 1, 1, 1), np.uint8), torch.tensor([1, 0]), {"a": torch.ones(2), "b": torch.zeros(2)})
    assert part.labels("identity").tolist() == [1, 0]
    assert part.labels("attributes").tolist() == [[1, 0], [1, 0]]
    for task in ("identity", "attributes"):
        with pytest.raises(ValueError, match=f"must have labels for task '{task}', got none"):
            Labelled(part.images).labels(task)


def test_a_digest_tells_photographs_and_labels_apart() -> None:
    faces = synthetic_faces(people=3, photos=4, size=(8, 8))
    images = faces.images.copy()
    images[5, 0, 3, 3] ^= 1
    others = [
        replace(faces, images=images),
        replace(faces, identity=faces.identity.flip(0)),
        replace(faces, attributes={**faces.attributes, "smiling": 1 - faces.attributes["smiling"]}),
        replace(faces, names=("a", "b", "c")),
        faces.take(torch.arange(11)),
    ]
    assert faces.take(torch.arange(12)).digest() == faces.digest()
    assert len({faces.digest(), *(other.digest() for other in others)}) == 6
