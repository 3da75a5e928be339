import dataclasses

import numpy as np
import pytest
import torch
from audit_scenes import SIZE, HidingEdge, OneTimePad, PixelEdge, scene, textures
from facemix.audit.attacks.attributes import Attributes
from facemix.audit.attacks.membership import Membership
from facemix.audit.attacks.output_side import PARTS, OutputSide
from facemix.audit.failure import PartFailed
from facemix.audit.outcome import Outcome

OUTPUTS = 96
MATRIX = torch.randn(SIZE[0] * SIZE[1], OUTPUTS, generator=torch.Generator().manual_seed(0))


def linear(rows):
    """A cloud that is one matrix."""
    return (rows.flatten(1) - 0.5) @ MATRIX


def attack(edge, cloud, people=32):
    return OutputSide().run(scene(edge, people=people, cloud=cloud), lambda share: None)


def test_outputs_give_away_who_is_in_a_row():
    outcome = attack(PixelEdge(4), linear)
    assert outcome.status == "done"
    assert outcome.result > 0.9
    assert outcome.recovered > 0.85
    assert outcome.variants[0].name.startswith("class-balanced success: attributes")
    assert outcome.variants[0].ceiling > 0.9
    assert outcome.pictures == ()


def test_it_reckons_with_noise_as_the_cloud_computes_it():
    """White noise is not white any more where half of the outputs have something in common."""
    common = MATRIX + 3 * (torch.arange(OUTPUTS) % 2)
    assert attack(HidingEdge(4, 0.3), lambda rows: (rows.flatten(1) - 0.5) @ common).result > 0.86


def test_it_learns_nothing_from_outputs_of_a_one_time_pad():
    outcome = attack(OneTimePad(4), linear)
    assert outcome.status == "done"
    assert outcome.recovered < 0.2
    assert all(variant.result < variant.floor + 0.1 for variant in outcome.variants)


def test_a_cloud_whose_outputs_say_nothing_leaves_it_without_an_answer():
    def mute(rows):
        return torch.zeros(len(rows), OUTPUTS)

    assert attack(PixelEdge(4), mute, people=16).status == "not converged"


def test_where_only_attributes_can_be_read_it_goes_by_them():
    """As of a network that was trained to tell attributes, and nothing else."""
    odd = torch.from_numpy(textures(32, 1, 1).images[1::2].astype(np.float32)).mean(0)
    even = torch.from_numpy(textures(32, 1, 1).images[::2].astype(np.float32)).mean(0)

    def attributes(rows):
        return (rows.flatten(1) - 0.5) @ (odd - even).flatten()[:, None] / 255

    outcome = attack(PixelEdge(1), attributes)
    assert outcome.measure.startswith("from the outputs: class-balanced success: attributes")
    assert outcome.recovered > 0.9


@pytest.mark.parametrize(
    ("people", "attributes", "speaks"),
    [
        ((0.02, 0.0, 0.04), (0.1, -0.02, 0.22), "people"),  # the better of two answers to noise
        ((0.1, -0.02, 0.22), (0.02, 0.0, 0.04), "people"),
        ((0.1, 0.01, 0.19), (0.3, 0.2, 0.4), "attributes"),
        ((0.4, 0.3, 0.5), (0.3, 0.2, 0.4), "people"),
    ],
)
def test_luck_does_not_choose_the_part_that_speaks(people, attributes, speaks, monkeypatch):
    for part, (result, *interval) in zip(PARTS, (people, attributes), strict=True):
        name = "people" if part.name == "membership" else "attributes"
        outcome = Outcome(
            "done", measure=name, floor=0.0, result=result, ceiling=1.0, interval=tuple(interval), says="S."
        )
        monkeypatch.setattr(type(part), "run", lambda self, scene, progress, outcome=outcome: outcome)
    outcome = attack(PixelEdge(4), linear)
    assert outcome.measure == f"from the outputs: {speaks}"
    assert len(outcome.variants) == 1  # the other part


def test_a_part_that_fails_takes_no_answer_from_the_other(monkeypatch, caplog):
    def broken(self, scene, progress):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Attributes, "run", broken)
    with pytest.raises(PartFailed) as caught:
        attack(PixelEdge(4), linear)
    outcome = caught.value.outcome
    assert outcome.status == "done"
    assert outcome.result > 0.9
    assert outcome.says.endswith("Its part attributes failed, and may have got more.")
    assert "attributes failed" in caplog.text
    monkeypatch.setattr(Membership, "run", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        attack(PixelEdge(4), linear)


def test_attributes_alone_do():
    whole = scene(PixelEdge(1), cloud=linear)
    alone = dataclasses.replace(whole, gallery=whole.gallery.take(torch.empty(0, dtype=torch.int64)))
    outcome = OutputSide().run(alone, lambda share: None)
    assert outcome.measure.startswith("from the outputs: class-balanced success: attributes")
    assert outcome.result > 0.8


def test_without_the_cloud_it_is_skipped():
    assert OutputSide().needs(scene(PixelEdge(4))).status == "skipped"
    assert OutputSide().needs(scene(PixelEdge(4), cloud=linear)) is None
