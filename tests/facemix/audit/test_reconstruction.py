import dataclasses

import numpy as np
import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, scene, textures
from facemix.audit.attacks import reconstruction
from facemix.audit.attacks.reconstruction import Reconstruction, _error, _others
from facemix.audit.evaluator import Evaluator
from facemix.audit.translation import Size, Translator, chamfer
from scipy.ndimage import gaussian_filter


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Small networks, trained for seconds."""
    monkeypatch.setattr(reconstruction, "SMALL", Size(8, 1, 1, 60, 4e-3))
    monkeypatch.setattr(reconstruction, "ROWS", 32)


def smooth(faces):
    """What a generator can draw: no single pixels."""
    blurred = gaussian_filter(faces.images.astype(float), (0, 0, 2, 2))
    stretched = 128 + (blurred - 128) * 5
    return dataclasses.replace(faces, images=stretched.clip(0, 255).astype(np.uint8))


def attack(edge):
    whole = scene(edge)
    sets = {name: smooth(getattr(whole, name)) for name in ("victims", "attacker", "gallery")}
    return Reconstruction().run(dataclasses.replace(whole, effort="full", **sets), lambda share: None)


def test_it_draws_what_is_sent_as_it_is():
    outcome = attack(PixelEdge(1))
    assert outcome.status == "done"
    assert outcome.result > outcome.floor + 0.3
    assert outcome.recovered > 0.9
    assert outcome.variants[1].result > 0.8
    assert "a generator of width 8, 1 blocks, 60 steps (reduced for a CPU" in outcome.measure
    assert len(outcome.pictures) == 3


def test_it_draws_nothing_of_a_one_time_pad():
    outcome = attack(OneTimePad(2))
    assert outcome.status == "done"
    assert outcome.recovered < 0.2
    assert outcome.variants[1].result < 0.2


def test_faces_that_are_like_any_recover_nothing(monkeypatch):
    """In the best order two different faces are more like two photographs than the average face is."""
    face = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (24, 20)), 2)
    face = (20 + (face - face.min()) * 215 / np.ptp(face)).astype(np.uint8)
    faces = torch.from_numpy(np.stack([face, 255 - face])).float()[:, None] / 127.5 - 1

    class AnyFaces:
        """Draws these two of every row that mixes two photographs."""

        def __init__(self, rows, truth, *_):
            self.photographs = truth[0]

        def fit(self, batches, progress):
            pass

        def __call__(self, rows):
            return 2 * rows[:, None] - 1 if self.photographs == 1 else faces.expand(len(rows), -1, -1, -1, -1)

    monkeypatch.setattr(reconstruction, "Translator", AnyFaces)
    whole = dataclasses.replace(scene(PixelEdge(2)), effort="full")
    sets = {}
    for name in ("victims", "attacker", "gallery"):
        known = getattr(whole, name)
        sign = (known.identity % 2 == 0)[:, None, None, None].numpy()
        images = np.where(sign, face, 255 - face) + known.images % 4  # no two the same
        sets[name] = dataclasses.replace(known, images=images)
    outcome = Reconstruction().run(dataclasses.replace(whole, **sets), lambda share: None)
    assert outcome.status == "done"
    assert outcome.floor == pytest.approx(outcome.result)


def test_other_rows_have_no_photograph_in_common():
    members = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 4], [5, 0]])
    for _ in range(10):
        theirs = members[_others(members, torch.default_generator)]
        assert not (members[:, :, None] == theirs[:, None]).any()
    assert _others(members[:2], torch.default_generator) is None


def test_errors_are_of_pixels_from_0_to_1():
    white = torch.ones(2, 3, 1, 4, 4)
    assert _error(white, -white) == [1, 1]


def test_a_generator_that_does_not_learn_shows_nothing(monkeypatch):
    monkeypatch.setattr(reconstruction, "SMALL", Size(4, 1, 1, 1, 1e-5))
    assert attack(PixelEdge(2)).status == "not converged"


def test_a_quick_audit_skips_it():
    assert Reconstruction().needs(scene(PixelEdge(4))).status == "skipped"
    assert Reconstruction().needs(dataclasses.replace(scene(PixelEdge(4)), effort="full")) is None


def test_the_chamfer_distance_ignores_the_order_and_counts_both_directions():
    images = torch.rand(2, 3, 1, 4, 4)
    assert chamfer(images, images[:, [2, 0, 1]]) == 0
    zero, one = torch.zeros(1, 2, 1, 2, 2), torch.zeros(1, 2, 1, 2, 2)
    one[0, 1] = 1  # the first is found twice, the second is nowhere near
    assert chamfer(one, zero) == 0.5
    assert chamfer(zero, one) == 0.5


def test_a_translator_is_the_same_again():
    rows, photographs = torch.randn(4, 3, 8, 8), torch.rand(4, 2, 1, 16, 12) * 2 - 1
    drawn = []
    for _ in range(2):
        one = Translator(rows.shape[1:], photographs.shape[1:], Size(4, 1, 1, 3, 1e-3), torch.device("cpu"), 5)
        one.fit([(rows, photographs)] * 3, lambda share: None)
        drawn.append(one(rows))
    torch.testing.assert_close(drawn[0], drawn[1])
    assert drawn[0].shape == photographs.shape


def test_the_evaluator_knows_faces_whatever_their_contrast():
    known, others = textures(16, 8, 1), textures(16, 2, 2)
    says = Evaluator(known)
    assert (says(others.images * 0.1 + 3) == others.identity.numpy()).mean() > 0.95
    assert (says(torch.rand(32, 1, 24, 20).numpy()) == others.identity.numpy()).mean() < 0.3
