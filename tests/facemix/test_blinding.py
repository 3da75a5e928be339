import math
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import GROUP, bundle_bytes, images
from facemix.edge.blinding import Blinding, normal

from facemix_ops.edge import Bundle, EdgeModel


@pytest.fixture
def half():
    return EdgeModel(Bundle.parse(bundle_bytes()), threads=1)


def test_noise_is_normal_and_its_seed_decides_it():
    values = normal(b"0" * 32, (50, 999))
    assert values.shape == (50, 999)
    np.testing.assert_array_equal(values, normal(b"0" * 32, (50, 999)))
    assert np.abs(np.corrcoef(values.ravel(), normal(b"1" * 32, (50, 999)).ravel())[0, 1]) < 0.02
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert np.mean(values**power) == pytest.approx(moment, abs=0.1)
    assert np.abs(np.corrcoef(values[:25].ravel(), values[25:].ravel())[0, 1]) < 0.02  # the two halves of pairs


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_noise_is_finite_whatever_bits_it_is_made_of(monkeypatch, byte):
    monkeypatch.setattr("hashlib.shake_256", lambda seed: SimpleNamespace(digest=lambda count: byte * count))
    assert np.isfinite(normal(b"0" * 32, (3, 3))).all()


def test_rows_keep_the_energy_that_the_cloud_was_trained_with(half):
    pictures = images(4 * GROUP)
    blinding = Blinding.of(half, pictures, share=0.5)
    with half.mix(pictures, wire_dtype="float32") as request:
        energy = np.square(request.payload).mean()
    assert 0.25 * energy + blinding.level**2 == pytest.approx(energy, rel=1e-4)


def test_the_share_shrinks_with_the_number_of_values_that_could_give_a_photograph_away(half):
    blinding = Blinding.of(half, images(GROUP))
    assert blinding.share == pytest.approx(0.25 / math.sqrt(math.prod(half.bundle.features_shape)))
    half.rows_per_image = 4
    assert Blinding.of(half, images(GROUP)).share == pytest.approx(blinding.share / 2)


def possible(sent, row):
    """At how many values of `sent`, of those smaller than it, a float32 can be the noise on `row`."""
    noise = sent.astype(np.float64) - row
    return np.mean((noise.astype(np.float32) == noise)[np.abs(noise) > 2 * np.abs(sent)])


def test_digits_of_what_is_sent_do_not_tell_what_is_beneath_the_noise():
    """What is tested for is found where floats are added as they are."""
    blinding, draw = Blinding(0.005, 1.6), np.random.default_rng(0)
    rows = draw.standard_normal((2, 100_000)).astype(np.float32)
    bare = (np.float32(blinding.level) * draw.standard_normal(rows[0].shape)).astype(np.float32)
    beneath = rows * np.float32(blinding.share)
    assert possible(bare + beneath[0], beneath[0]) == 1 > 0.9 > possible(bare + beneath[0], beneath[1])

    blinding.scale(rows, blinding.share)
    np.testing.assert_allclose(rows, beneath, atol=blinding.step * 0.51)
    sent = rows[0] + blinding.rows([bytes(32)], rows[0].shape)[0]
    for row in rows:
        noise = (sent.astype(np.float64) - row) / blinding.step
        np.testing.assert_array_equal(noise, np.rint(noise))
        assert np.abs(noise).max() < 2**24
        assert possible(sent, row) == 1


@pytest.mark.parametrize("energy", [1e-12, 0.3, 1.0, 4.0, 1e12])
def test_float32_has_steps_enough_for_noise_and_a_mixed_row(energy):
    blinding = Blinding(0.25, energy)
    assert 2**19 <= blinding.level / blinding.step < 2**20
    assert 8.7 * blinding.level < 2**24 * blinding.step - 7 * blinding.level
    assert math.sqrt(-2 * math.log(0.5 * 2.0**-53)) < 8.7  # the largest of `normal`


def test_no_zero_has_a_sign():
    values = np.array([-1e-9, -0.0, 0.0], np.float32)
    Blinding(0.5, 1.0).scale(values, 0.5)
    assert not np.signbit(values).any()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_outside_of_zero_and_one_is_refused(half, share):
    with pytest.raises(ValueError, match="Blinding: share must be above 0 and below 1, got"):
        Blinding.of(half, images(GROUP), share)


def test_less_than_a_group_of_public_images_is_refused(half):
    with pytest.raises(ValueError, match=f"images must be at least {GROUP}, a group, got {GROUP - 1}"):
        Blinding.of(half, images(GROUP - 1))
