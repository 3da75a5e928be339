import dataclasses

import pytest
import torch
from audit_scenes import HidingEdge, OneTimePad, PixelEdge, scene
from facemix.audit.attacks import membership
from facemix.audit.attacks.membership import Membership, _found
from facemix.audit.rehearsal import attacked


def attack(edge, **more):
    return Membership().run(scene(edge, people=32, **more), lambda share: None)


@pytest.mark.parametrize("size", [1, 4, 8])
def test_it_names_who_is_in_a_row_whatever_the_key(size):
    outcome = attack(PixelEdge(size))
    assert outcome.status == "done"
    assert outcome.floor == pytest.approx(size / 32, rel=0.15)  # a few rows hold both photographs of somebody
    assert outcome.result > 0.95
    assert outcome.ceiling > 0.95
    assert outcome.curves[-1].auc > 0.99


def test_it_learns_nothing_from_a_one_time_pad():
    outcome = attack(OneTimePad(4))
    assert outcome.status == "done"
    assert outcome.result < outcome.floor + 0.15
    assert outcome.recovered < 0.2
    assert abs(outcome.curves[0].auc - 0.5) < 0.1


def test_it_reckons_with_noise_that_it_leaves_out_of_its_own_rows():
    assert attack(HidingEdge(4, 0.5)).result > 0.9


def test_rows_in_which_nobody_of_the_gallery_is_do_not_count():
    whole = scene(PixelEdge(1), people=32)
    few = dataclasses.replace(whole, gallery=whole.gallery.take(torch.arange(0, 32, 2)))
    outcome = Membership().run(few, lambda share: None)
    assert outcome.result > 0.95
    assert outcome.ceiling > 0.95
    assert outcome.floor == pytest.approx(1 / 16)


def test_where_nobody_can_tell_people_apart_it_says_so():
    whole = scene(PixelEdge(4), people=32)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(32, (256,), generator=generator)
    gallery = dataclasses.replace(whole.gallery, identity=torch.randperm(32, generator=generator))
    confused = dataclasses.replace(whole, attacker=dataclasses.replace(whole.attacker, identity=drawn), gallery=gallery)
    outcome = Membership().run(confused, lambda share: None)
    assert outcome.status == "not converged"
    assert outcome.recovered is None


def test_as_many_people_are_named_as_are_in_a_row():
    scores, inside = torch.tensor([[3.0, 2.0, 1.0]] * 3), torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0]]) == 1
    assert _found(scores, inside) == pytest.approx((0.5 + 1 + 0) / 3)


def test_without_a_gallery_it_is_skipped():
    whole = scene(PixelEdge(4))
    nobody = dataclasses.replace(whole, gallery=whole.gallery.take(torch.empty(0, dtype=torch.int64)))
    assert Membership().needs(nobody).status == "skipped"
    assert Membership().needs(whole) is None


def test_its_pictures_frame_right_answers():
    outcome = attack(PixelEdge(4))
    photographed, sent, named = outcome.pictures
    assert len(photographed.pictures) == len(sent.pictures) == len(named.pictures) == 8
    assert all(named.right)


def test_its_interval_is_over_groups(monkeypatch):
    """Rows of a group mix the same people: they are no cases of their own."""
    drawn = []
    monkeypatch.setattr(membership, "interval", lambda values, seed: drawn.append(values) or (0.0, 1.0))
    attack(PixelEdge(4))
    whole = scene(PixelEdge(4), people=32)
    assert len(drawn[-1]) == len(attacked(whole).group.unique())
