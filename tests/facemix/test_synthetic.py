"""Synthetic faces and the set they come in."""

import re

import pytest
import torch
from facemix.data import synthetic_faces
from facemix.data.synthetic import ATTRIBUTES


def test_same_seed_same_bits() -> None:
    first, again, other = (synthetic_faces(seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.images, again.images)
    assert all(torch.equal(first.attributes[name], again.attributes[name]) for name in ATTRIBUTES)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("size", [(16, 16), (31, 47)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_labels(size: tuple[int, int], channels: int) -> None:
    faces = synthetic_faces(people=4, photos=9, size=size, channels=channels)
    assert faces.images.shape == (36, channels, *size)
    assert faces.images.isfinite().all()
    assert 0 <= faces.images.min() < faces.images.max() <= 1
    assert faces.people == 4
    assert faces.identity.tolist() == [row // 9 for row in range(36)]
    for name in ATTRIBUTES:
        assert set(faces.attributes[name].tolist()) == {0, 1}


def test_people_differ_more_than_photos_of_one() -> None:
    images = synthetic_faces(people=6, photos=12, size=(32, 32)).images.view(6, 12, -1)
    within = images.var(dim=1).mean()
    between = images.mean(dim=1).var(dim=0).mean()
    assert between > within


def test_attributes_show_in_the_image() -> None:
    faces = synthetic_faces(people=1, photos=64, size=(32, 32))
    glasses = faces.attributes["glasses"].bool()
    change = faces.images[glasses].mean(0) - faces.images[~glasses].mean(0)
    assert change[0, 8:20].min() < -0.1  # darker, somewhere about the eyes


def test_split_keeps_labels_with_images() -> None:
    faces = synthetic_faces(people=3, photos=10)
    first, second = faces.split(0.7, seed=0)
    assert first.identity.bincount().tolist() == [7] * 3
    assert second.identity.bincount().tolist() == [3] * 3
    for part in (first, second):
        for row in range(len(part)):
            (place,) = (faces.images == part.images[row]).all(dim=(1, 2, 3)).nonzero().flatten().tolist()
            assert faces.identity[place] == part.identity[row]
            assert faces.attributes["smiling"][place] == part.attributes["smiling"][row]


def test_refusals_say_what_came() -> None:
    with pytest.raises(ValueError, match=re.escape("synthetic_faces: people must be at least 1, got 0")):
        synthetic_faces(people=0)
    with pytest.raises(ValueError, match=re.escape("split: share must be between 0 and 1, exclusive, got 1.5")):
        synthetic_faces().split(1.5, seed=0)
