"""What is in each row, and what attacks have in common: read-out, control, curves, pictures."""

from itertools import islice

import numpy as np
import pytest
import torch
from audit_scenes import HidingEdge, PixelEdge, scene, textures
from facemix.audit import rehearsal
from facemix.audit.control import fails_unprotected
from facemix.audit.curves import roc
from facemix.audit.display import photographs, rows_as_sent
from facemix.audit.readout import Readout
from facemix.audit.rehearsal import attacked, divided, gathered, rehearse, rehearsed, requests_a_pass


def sources_of(rows, faces, edge):
    return edge.clean(torch.from_numpy(faces.images)).double()[rows]


@pytest.mark.parametrize("size", [1, 4])
def test_a_row_is_the_weighted_sum_of_its_members(size):
    edge, faces = PixelEdge(size), textures(6, 4, 1)
    rows = gathered(islice(rehearse(edge, faces, torch.Generator().manual_seed(0)), 3))
    assert rows.members.shape == rows.weights.shape == (len(rows.received), size)
    mixed = torch.einsum("bs,bschw->bchw", rows.weights, sources_of(rows.members, faces, edge))
    torch.testing.assert_close(rows.received.double(), mixed, rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.clean.double(), sources_of(rows.owner, faces, edge), rtol=0, atol=1e-6)
    assert (rows.weights.abs().diff(dim=1) <= 0).all()


def test_rows_of_a_group_belong_to_its_images_each_to_one():
    rows = attacked(scene(PixelEdge(4)))
    assert rows.group.max() + 1 == 64
    for group in range(64):
        mine = rows.group == group
        assert sorted(rows.owner[mine].tolist()) == sorted(rows.members[mine][0].tolist())


def test_unprotected_rows_are_those_of_an_edge_that_mixes_nothing():
    edge, faces = PixelEdge(4), textures(6, 2, 1)
    rows = next(rehearse(edge, faces, torch.Generator().manual_seed(0))).unprotected()
    torch.testing.assert_close(rows.received.double(), sources_of(rows.members[:, 0], faces, edge), rtol=0, atol=1e-6)
    assert rows.members[:, 0].tolist() == rows.owner.tolist()
    assert (rows.weights == 1).all()


def test_where_nothing_is_shuffled_row_k_belongs_to_image_k():
    faces = textures(4, 2, 1)
    rows = next(rehearse(PixelEdge(4, shuffle=False), faces, torch.Generator().manual_seed(0)))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert rows.owner.tolist() == order.tolist()


def test_a_pass_holds_every_photograph_once_and_the_next_one_mixes_anew():
    edge, faces = PixelEdge(4), textures(9, 5, 1)  # 45: 11 groups and one photograph that is left out
    count = requests_a_pass(edge, faces)
    requests = rehearse(edge, faces, torch.Generator().manual_seed(0))
    first, second = gathered(islice(requests, count)), gathered(islice(requests, count))
    assert len(first.owner.unique()) == len(first.owner) == len(second.owner) == 44
    assert not torch.equal(first.owner, second.owner)


def test_the_attacker_needs_a_group_of_photographs():
    with pytest.raises(ValueError, match="at least a group of photographs, 4, got 3"):
        next(rehearse(PixelEdge(4), textures(3, 1, 1), torch.Generator()))


def test_the_readout_finds_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    rows, matrix = torch.randn(40, 5, 6, generator=generator), torch.randn(30, 3, generator=generator)
    read = Readout(rows, rows.flatten(1) @ matrix)
    torch.testing.assert_close(read(rows), rows.flatten(1) @ matrix, rtol=0, atol=0.5)
    assert np.corrcoef(read(-rows).flatten(), (-rows.flatten(1) @ matrix).flatten())[0, 1] > 0.99


def test_the_readout_looks_where_there_is_little_noise():
    """Two columns tell as much, beneath more noise and less: they count in proportion to 1 / variance."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(100, 1, generator=generator)
    rows, noise = targets.expand(100, 2), torch.randn(400, 2, generator=generator) * torch.tensor([2.0, 0.5])
    read = Readout(rows, targets, noise)
    torch.testing.assert_close(read(torch.eye(2)).flatten(), torch.tensor([0.25, 4.0]) / 5.25, rtol=0.1, atol=0.02)


def test_rows_to_learn_from_are_beneath_no_noise_and_some_of_it_is_beside():
    faces = textures(6, 4, 1)
    for level, count in ((0.0, 0), (0.5, rehearsal.NOISE)):
        mine = rehearsed(HidingEdge(4, level), faces, 2, torch.Generator().manual_seed(0))
        mixed = torch.einsum("bs,bschw->bchw", mine.weights, sources_of(mine.members, faces, PixelEdge(4)))
        torch.testing.assert_close(mine.received.double(), mixed, rtol=0, atol=1e-5)
        assert len(mine.noise) == count
        assert not len(mine.unprotected().noise)
    assert mine.noise.std() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("photos", [10, 2])
def test_some_photographs_are_held_back_to_choose_with(photos):
    """Of each person; of all together where two of each leave none."""
    faces = textures(6, photos, 1)
    train, held = divided(faces, 0.8, seed=0, least=2)
    assert 2 <= len(held) <= 0.25 * len(faces)
    assert {image.tobytes() for image in train.images} | {image.tobytes() for image in held.images} == {
        image.tobytes() for image in faces.images
    }
    assert len(train) + len(held) == len(faces)
    if photos == 10:
        assert held.identity.bincount().tolist() == [2] * 6


def test_an_attack_that_fails_unprotected_is_not_converged():
    failed = fails_unprotected([0.0, 1.0] * 20, 0.5, 0)
    assert failed is not None
    assert failed.status == "not converged"
    assert fails_unprotected([1.0] * 38 + [0.0] * 2, 0.5, 0) is None


def test_the_curve_of_a_score_that_tells_and_of_one_that_does_not():
    true = np.arange(1000) % 2 == 0
    (perfect,), (chance,) = roc("p", true, true * 1.0), roc("c", true, np.random.default_rng(0).normal(size=1000))
    assert perfect.auc == 1
    assert abs(chance.auc - 0.5) < 0.06
    for curve in (perfect, chance):
        assert len(curve.false_positive) == len(curve.true_positive) <= 200
        assert curve.false_positive[0] == curve.true_positive[0] == 0
        assert curve.false_positive[-1] == curve.true_positive[-1] == 1
    assert roc("all", [True, True], [0, 1]) == ()


def test_pictures_of_photographs_and_of_rows():
    faces = textures(2, 2, 1)
    assert (photographs("p", faces, torch.tensor([3])).pictures[0] == faces.images[3, 0]).all()
    features = torch.randn(2, 4, 5, 6)
    features[:, 1] *= 10
    line = rows_as_sent("r", features)
    assert (line.pictures[1] == features[1, 1].numpy()).all()
    assert line.limit == features[:, 1].abs().max()
    for channels, shape in ((1, (5, 6)), (3, (5, 6, 3))):
        pictures = np.stack(rows_as_sent("r", features[:, :channels]).pictures)
        assert pictures.shape == (2, *shape)
        assert (pictures.min(), pictures.max()) == (0, 1)


def test_what_is_kept_fits_into_memory(monkeypatch):
    edge, faces = PixelEdge(4), textures(8, 8, 1)
    whole = rehearsed(edge, faces, 3, torch.Generator().manual_seed(0))
    assert len(whole.owner) == 192
    monkeypatch.setattr(rehearsal, "VALUES", 130 * 24 * 20)
    part = rehearsed(edge, faces, 3, torch.Generator().manual_seed(0))
    assert part.owner.tolist() == whole.owner[:128].tolist()
