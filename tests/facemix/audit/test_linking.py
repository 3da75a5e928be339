from dataclasses import replace

import pytest
import torch
from audit_scenes import HidingEdge, OneTimePad, PixelEdge, RectifiedEdge, scene
from facemix.audit.attacks.linking import Linking, _ranked_rightly


def link(edge, **more):
    return Linking().run(scene(edge, **more), lambda done: None)


@pytest.mark.parametrize("edge", [PixelEdge(1), PixelEdge(2), PixelEdge(8), RectifiedEdge(4)])
def test_requests_that_share_a_photograph_are_linked(edge):
    outcome = link(edge)
    assert outcome.status == "done"
    assert (outcome.floor, outcome.result, outcome.ceiling) == (0.5, 1, 1)
    assert outcome.curves[0].auc == 1


@pytest.mark.parametrize(("edge", "least"), [(HidingEdge(1, 0.6), 0.9), (HidingEdge(4, 0.5), 0.7)])
def test_beneath_noise_directions_count_by_what_is_in_them(edge, least):
    outcome = link(edge, people=48)
    assert outcome.result > least
    assert outcome.ceiling == 1


def test_a_one_time_pad_cannot_be_linked():
    outcome = link(OneTimePad(4))
    assert outcome.ceiling == 1
    assert outcome.result < 0.7
    assert not outcome.beyond_chance()


def test_one_photograph_is_shared_and_no_other():
    """Each trial compares a request with two that differ in one photograph."""
    sent, victims = [], {image.tobytes() for image in scene(PixelEdge(4)).victims.images}

    class Watched(PixelEdge):
        def send(self, images, generator, reuse=None):
            photographs = {image.numpy().tobytes() for image in images}
            if photographs <= victims:  # else the attacker's own
                sent.append(photographs)
            return super().send(images, generator, reuse)

    link(Watched(4))
    for first, same, other in zip(*[iter(sent)] * 3, strict=True):
        assert len(first) == len(same) == len(other)
        assert len(first & same) == 1
        assert not first & other
        assert len(same & other) == len(same) - 1


def test_scores_that_are_equal_count_a_half():
    scores = torch.tensor([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    assert _ranked_rightly(scores).tolist() == [1, 0.5, 0]


def test_it_needs_victims_for_two_requests():
    few = scene(PixelEdge(4))
    assert Linking().needs(few) is None
    few = replace(few, victims=few.victims.take(torch.arange(7)))
    assert Linking().needs(few).status == "skipped"
