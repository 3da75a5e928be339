from dataclasses import replace

import pytest
import torch
from audit_scenes import HalvedEdge, OneTimePad, PixelEdge, RectifiedEdge, scene
from facemix.audit.attacks import pooling
from facemix.audit.attacks.pooling import Pooling, _strangers, common
from facemix.audit.edge import load_edge
from facemix.audit.request import Request
from facemix.audit.reuse import _without_blinders, reused
from facemix.edge.blinding import Blinding
from facemix.export import export_edge
from facemix.models import build


class NoisyEdge(PixelEdge):
    """Sends images one by one, with noise that is drawn anew each time."""

    def send(self, images, generator, reuse=None):
        request = super().send(images, generator, reuse)
        noise = torch.randn(request.received.shape, generator=generator)
        return Request(request.received + 0.3 * noise, request.truth)


def pool(edge, **more):
    return Pooling().run(scene(edge, **more), lambda done: None)


def test_a_photograph_that_is_sent_again_under_a_fresh_key_comes_out_exactly():
    outcome = pool(PixelEdge(4))
    assert outcome.status == "done"
    assert outcome.result == pytest.approx(1, abs=1e-6)
    assert outcome.recovered == pytest.approx(1, abs=1e-6)
    assert outcome.floor < 0.2
    assert outcome.variants[0].result < 0.95


def test_noise_that_is_drawn_anew_is_averaged_away():
    outcome = pool(NoisyEdge(1))
    once = outcome.variants[0].result
    assert outcome.result > once + 0.2  # four copies: half the noise
    assert outcome.result == pytest.approx(once / (once**2 + (1 - once**2) / 4) ** 0.5, abs=0.05)
    assert [variant.name for variant in outcome.variants] == ["sent once: the row that is most like it"]


def test_a_one_time_pad_stays_one_however_often_it_is_used():
    outcome = pool(OneTimePad(4))
    assert outcome.ceiling == pytest.approx(1, abs=1e-6)
    assert outcome.recovered < 0.1


def test_a_repeated_key_gives_the_faces():
    repeated = pool(RectifiedEdge(8)).variants[1]
    assert repeated.name == "if a key were used for 4 requests"
    assert repeated.result > 0.98


def test_a_repeated_key_has_the_bound_of_the_edge():
    keys = []

    class Bounded(PixelEdge):
        max_coeff = 0.7

        def send(self, images, generator, reuse=None):
            keys.extend([reuse.key] if reuse else [])
            return super().send(images, generator, reuse)

    list(reused(scene(Bounded(4))))
    assert keys
    assert all(key.coeffs.abs().max() <= 0.7 for key in keys)


def test_the_common_direction_of_spans_is_found():
    shared = torch.randn(1, 2, 5, 5)
    requests = [torch.cat((shared, torch.randn(3, 2, 5, 5))) for _ in range(3)]
    mixed = [torch.einsum("ij,jchw->ichw", torch.linalg.qr(torch.randn(4, 4)).Q, rows) for rows in requests]
    found = common(mixed, 1)
    assert torch.cosine_similarity(found.flatten(), shared.flatten(), dim=0).abs() > 0.9999


@pytest.mark.parametrize("count", [1, 3])
def test_sources_in_common_come_out_but_for_an_orthogonal_matrix(count):
    shared = torch.randn(count, 2, 5, 5) + 0.5
    requests = [torch.cat((shared, torch.randn(4, 2, 5, 5))) for _ in range(3)]
    size = count + 4
    mixed = [torch.einsum("ij,jchw->ichw", torch.linalg.qr(torch.randn(size, size)).Q, rows) for rows in requests]
    found = common(mixed, count).flatten(1)
    torch.testing.assert_close(found.T @ found, shared.flatten(1).T @ shared.flatten(1), rtol=0, atol=1e-3)


def test_a_photograph_in_parts_comes_out_in_parts():
    outcome = pool(HalvedEdge(4))
    assert outcome.result > 0.99
    assert outcome.ceiling > 0.99


@pytest.mark.parametrize(("others", "companions", "times"), [(119, 7, 3), (119, 31, 6), (119, 63, 12), (1, 0, 1)])
def test_larger_groups_take_more_requests(others, companions, times):
    """Until less than a tenth of another photograph is in all of them, on average."""
    assert pooling._times(others, companions) == times
    assert others * (companions / others) ** times < pooling.ALSO


def test_strangers_are_other_people_or_other_photographs():
    whole, rows = scene(PixelEdge(4)), torch.tensor([0, 1, 4])  # two of one person, and another's
    one, other = torch.randn(2, 1, 1, 24, 20)
    sources = [one, one, other]
    assert _strangers(whole, rows, sources, sources) < 0.2
    nobody = replace(whole, victims=replace(whole.victims, identity=None))
    assert _strangers(nobody, rows, sources, sources) == pytest.approx(1 / 3, abs=0.15)  # one pair of three is alike


def test_few_victims_are_together_in_every_request():
    """What requests have in common is then not one photograph; of a few more, many requests tell."""
    whole = scene(PixelEdge(4))
    more = Pooling().run(replace(whole, victims=whole.victims.take(torch.arange(6))), lambda share: None)
    assert more.result > 0.99
    few = replace(whole, victims=whole.victims.take(torch.arange(4)))
    assert Pooling().needs(few).status == "skipped"
    assert Pooling().needs(whole) is None
    assert Pooling().needs(replace(few, edge=PixelEdge(1))) is None


def test_repeated_blinders_are_taken_off_wherever_the_shuffle_puts_them():
    blinders, rows = 10 * torch.randn(4, 1, 8, 8), torch.randn(50, 4, 1, 8, 8)
    received = [(blinders + row)[torch.randperm(4)] if number else blinders + row for number, row in enumerate(rows)]
    found = _without_blinders(received)
    assert (found - rows[0]).std() < 0.2


def test_repeated_blinders_give_the_faces_that_blinders_hide(tmp_path):
    network, path = build("resnet18", {"num_classes": 5, "in_channels": 1}).eval(), tmp_path / "edge.safetensors"
    export_edge(path, network, (1, 24, 20), name="n", group_size=4, mean=[0.5], std=[0.25])
    edge = load_edge(path, blinding=Blinding(share=0.05, energy=0.1))
    outcome = pool(edge)
    repeated_key, repeated_blinders, in_other_groups, repeats = outcome.variants[1:]
    assert outcome.recovered < 0.1
    assert repeated_key.result < 0.3
    assert repeated_blinders.result > repeated_blinders.floor + 0.3
    assert in_other_groups.result == 0
    assert repeats.result < 0.3
