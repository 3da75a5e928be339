import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, scene
from facemix.audit import repeats
from facemix.audit.matching import amari
from facemix.audit.repeats import axes, repeated
from facemix.audit.request import Secrets

import facemix_ops as fo


@pytest.mark.parametrize(("size", "bound"), [(4, 0.7), (8, 0.6)])
def test_keys_below_a_bound_show_after_some_requests_and_others_do_not(size, bound):
    for limit in (bound, None):
        generator = torch.Generator().manual_seed(1)
        keys = fo.MixKey.sample(20 * size, size, max_coeff=limit, generator=generator).coeffs
        found = axes((keys @ keys[0].T).flatten(0, 1), generator)
        index = amari(found.T @ keys[0])
        assert index < 0.15 if limit else index > 0.3


class BoundedEdge(PixelEdge):
    """Draws keys with no coefficient above 0.7."""

    def send(self, images, generator, reuse=None):
        key = fo.MixKey.sample(len(images), self.group_size, max_coeff=0.7, generator=generator)
        return super().send(images, generator, Secrets(key))


def test_the_same_group_again_and_again():
    (bounded,), (free,), (pad,) = (
        tuple(repeated(scene(edge))) for edge in (BoundedEdge(4), PixelEdge(4), OneTimePad(4))
    )
    assert bounded.name == "if the same group were sent 8 times: correlation with its photographs"
    assert bounded.result > 0.95
    assert free.result < free.floor + 0.15
    assert pad.result < 0.2


def test_of_several_starts_the_one_that_ends_lowest_counts(monkeypatch):
    monkeypatch.setattr(repeats, "STEPS", 0)
    rows, state = torch.randn(20, 4, dtype=torch.float64), torch.Generator().manual_seed(1)
    starts = [torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=state)).Q for _ in range(repeats.STARTS)]
    found = axes(rows, torch.Generator().manual_seed(1))
    assert ((rows @ found) ** 4).sum() == min(((rows @ start) ** 4).sum() for start in starts)
