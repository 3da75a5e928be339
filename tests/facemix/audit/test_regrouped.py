import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, RectifiedEdge, scene
from facemix.audit.regrouped import given_away, regrouped

import facemix_ops as fo


@pytest.mark.parametrize("edge", [PixelEdge(4), RectifiedEdge(4)])
def test_photographs_that_are_sent_again_in_other_groups_come_out(edge):
    (variant,) = regrouped(scene(edge))
    assert variant.name == "if photographs were sent 3 times, in other groups: share that comes out"
    assert variant.result > 0.8
    assert variant.floor < 0.3


def test_a_one_time_pad_stays_one():
    (variant,) = regrouped(scene(OneTimePad(4)))
    assert variant.result == 0


def test_one_group_is_the_same_group_again():
    assert list(regrouped(scene(PixelEdge(8), people=4))) == []


def test_what_is_alone_with_its_group_of_another_request_comes_out_and_nothing_else():
    """Of 6 and 7, which are together twice, only their span is known."""
    sources, generator = torch.randn(8, 50).double(), torch.Generator().manual_seed(0)
    first, second = (
        fo.group_mix(sources[order], fo.MixKey.sample(8, 2, generator=generator))
        for order in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 4, 3, 5, 6, 7])
    )
    found = given_away(first, second, 2)
    likeness = torch.cosine_similarity(found[:, None], sources[None], dim=2).abs()
    assert sorted(likeness.argmax(1).tolist()) == [0, 1, 2, 3, 4, 5]
    assert likeness.amax(1).min() > 0.999999
