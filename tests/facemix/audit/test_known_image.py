from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_scenes import HalvedEdge, HidingEdge, OneTimePad, PixelEdge, scene
from facemix.audit.attacks.known_image import KnownImage


def attack(edge, **more):
    return KnownImage().run(scene(edge, **more), lambda done: None)


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_a_photograph_that_was_mixed_in_is_told_from_one_that_was_not(group_size):
    outcome = attack(PixelEdge(group_size))
    assert outcome.status == "done"
    assert (outcome.floor, outcome.result, outcome.ceiling) == (0.5, 1, 1)
    assert outcome.curves[0].auc == 1
    assert "right in 100.0 % of cases" in outcome.says


def test_whoever_has_all_photographs_but_one_gets_that_one():
    outcome = attack(PixelEdge(4))
    (last,) = outcome.variants
    assert last.result == pytest.approx(1, abs=1e-6)
    lines = {line.caption: np.stack(line.pictures) for line in outcome.pictures}
    assert abs(lines["all others known"] - lines["their features"]).max() < 0.01
    assert abs(lines["the most similar\nrow that was sent"] - lines["their features"]).max() > 0.1


def test_a_one_time_pad_hides_what_was_sent():
    outcome = attack(OneTimePad(4))
    assert outcome.ceiling == 1
    assert outcome.recovered < 0.1
    assert outcome.variants[0].result < 0.3


def test_parts_of_a_photograph_are_looked_for_together():
    outcome = attack(HalvedEdge(4))
    assert outcome.result == 1
    assert outcome.variants[0].result > 0.99  # two halves are left, mixed


def test_noise_does_not_hide_a_photograph_that_is_known():
    """The attacker compares with the photograph itself, and not with another noisy copy of it."""
    outcome = attack(HidingEdge(1, 0.5))
    assert outcome.result > 0.85
    assert outcome.variants == () == outcome.pictures


def test_what_is_not_mixed_is_compared_with_what_the_edge_makes_of_the_photograph():
    class Negative(PixelEdge):
        def send(self, images, generator, reuse=None):
            request = super().send(images, generator, reuse)
            return replace(request, received=1 - request.received)

    assert attack(Negative(1)).result == 1


def test_beneath_noise_it_looks_at_what_is_special_about_a_photograph():
    """A photograph's energy is for the most part what all have in common: brightness."""
    outcome = attack(HidingEdge(4, 0.3), people=32)
    assert outcome.result > 0.9
    assert outcome.ceiling == 1


def test_without_photographs_of_its_own_it_expects_nothing():
    whole = scene(PixelEdge(4))
    assert KnownImage().needs(replace(whole, attacker=whole.attacker.take(torch.arange(3)))).status == "skipped"


def test_it_needs_victims_who_are_in_no_request():
    few = scene(PixelEdge(4), people=16)
    few = replace(few, victims=few.victims.take(torch.arange(7)))
    assert KnownImage().needs(few).status == "skipped"
    assert KnownImage().needs(replace(few, victims=scene(PixelEdge(4)).victims.take(torch.arange(8)))) is None
