"""Who shares a group follows from the images."""

from __future__ import annotations

import numpy as np
import pytest
from bundles import images

from facemix_ops.edge.grouping import decoys_for, digest, places

NAMES = [digest(image) for image in images(40)]


def test_a_digest_is_of_every_pixel_however_they_lie() -> None:
    image, *_ = images(1)
    assert digest(np.asfortranarray(image)) == digest(image)
    for place in np.ndindex(image.shape):
        other = image.copy()
        other[place] ^= 1
        assert digest(other) != digest(image)


@pytest.mark.parametrize("parts", [1, 4])
def test_places_are_the_images_wherever_they_stand(parts: int) -> None:
    rows = places(NAMES, parts)
    np.testing.assert_array_equal(np.sort(rows), np.arange(40 * parts))
    order = np.random.default_rng(0).permutation(40)
    again = places([NAMES[n] for n in order], parts)
    np.testing.assert_array_equal(again.reshape(40, parts), rows.reshape(40, parts)[order])


def test_neighbours_have_nothing_to_do_with_the_order() -> None:
    steps = np.diff(places(NAMES))
    assert 0 < np.count_nonzero(steps > 0) < 39
    assert np.abs(steps).mean() > 8  # a third of 40, at random


def test_decoys_are_the_images() -> None:
    decoys = [digest(image) for image in images(30, seed=1)]
    chosen = decoys_for(NAMES[:5], decoys, 7)
    assert len(set(chosen)) == 7
    assert decoys_for(NAMES[4::-1], decoys, 7) == chosen
    assert decoys_for(NAMES[:5], decoys, 3) == chosen[:3]
    assert decoys_for(NAMES[:6], decoys, 7) != chosen


def test_decoys_are_others_and_different() -> None:
    assert sorted(decoys_for(NAMES[:2], [NAMES[0], NAMES[5], NAMES[5], NAMES[6]], 4)) == [2, 3]
    assert decoys_for(NAMES, [], 1) == []
