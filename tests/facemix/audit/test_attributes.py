import dataclasses

import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, scene
from facemix.audit.attacks.attributes import Attributes, _share, _success
from facemix.data import UNKNOWN


def attack(whole):
    return Attributes().run(whole, lambda share: None)


def anonymous(whole):
    """The same photographs, of nobody knows whom."""
    sets = {name: dataclasses.replace(getattr(whole, name), identity=None) for name in ("victims", "attacker")}
    nobody = whole.gallery.take(torch.empty(0, dtype=torch.int64))
    return dataclasses.replace(whole, gallery=dataclasses.replace(nobody, identity=None), **sets)


def test_it_tells_an_attribute_that_the_row_shows():
    outcome = attack(scene(PixelEdge(1)))
    assert outcome.status == "done"
    assert outcome.floor == 0.5
    assert outcome.result > 0.9
    assert outcome.recovered > 0.8


def test_of_mixed_rows_it_knows_who_is_in_them_and_answers_as_most_of_them_would():
    outcome = attack(scene(PixelEdge(4)))
    by_people = next(variant for variant in outcome.variants if variant.name == "by who is in the row")
    assert by_people.ceiling > 0.95
    assert 0.6 < by_people.result < 0.75


def test_it_learns_nothing_from_a_one_time_pad():
    outcome = attack(scene(OneTimePad(4)))
    assert outcome.status == "done"
    assert abs(outcome.result - 0.5) < 0.06
    assert outcome.ceiling > 0.9


def test_people_need_not_be_known():
    outcome = attack(anonymous(scene(PixelEdge(1))))
    assert outcome.result > 0.8
    assert [variant.name for variant in outcome.variants] == ["the paper's network", "linear read-out", "odd"]


def test_what_nobody_can_tell_is_left_out():
    whole = scene(PixelEdge(1))
    some = whole.attacker.attributes["odd"].clone()
    some[::3] = UNKNOWN
    theirs = whole.victims.attributes["odd"].clone()
    theirs[:6] = UNKNOWN
    outcome = attack(
        dataclasses.replace(
            whole,
            attacker=dataclasses.replace(whole.attacker, attributes={"odd": some}),
            victims=dataclasses.replace(whole.victims, attributes={"odd": theirs}),
        )
    )
    assert outcome.result > 0.85
    assert outcome.variants[1].name == "linear read-out"
    assert outcome.variants[1].ceiling > 0.9


def test_what_is_unknown_counts_neither_way():
    assert _share(torch.tensor([[1, 0, UNKNOWN], [UNKNOWN, 1, UNKNOWN], [1, 0, UNKNOWN]])).tolist() == [1, 1 / 3, 0.5]


def test_what_is_unknown_makes_no_figure_surer():
    """The error of the mean of values is that of the answers that are right or wrong, however many more there are."""
    answer, truth = torch.rand(40, 1) > 0.4, torch.ones(40, 1, dtype=torch.int8)
    more = torch.full((60, 1), UNKNOWN, dtype=torch.int8)
    few, all_ = _success(answer, truth), _success(torch.cat((answer, more == 0)), torch.cat((truth, more)))
    assert all_.mean() == pytest.approx(few.mean())
    assert all_.var(correction=0) / len(all_) == pytest.approx(few.var(correction=0) / len(few))


def test_two_photographs_a_person_are_enough_to_choose_with():
    whole = scene(PixelEdge(1), people=32)
    two = whole.attacker.take((torch.arange(256) % 8 < 2).nonzero().flatten())
    assert Attributes().run(dataclasses.replace(whole, attacker=two), lambda share: None).status == "done"


def test_an_attribute_that_none_to_train_on_lacks_spoils_no_other(monkeypatch):
    """Where it is unknown besides, its weight is infinite, and counts nothing all the same."""
    whole = scene(PixelEdge(1))
    order = torch.randperm(128, generator=whole.generator("attributes", "photographs"))
    seed = whole.seed_of("attributes", "split")
    for lacking in range(128):  # one that is not trained with
        rare = torch.ones(128, dtype=torch.int8)
        rare[3], rare[lacking] = -1, 0
        theirs = {"odd": whole.attacker.attributes["odd"], "rare": rare}
        own = dataclasses.replace(whole.attacker, attributes=theirs)
        train, _ = own.take(order).split(0.8, seed)
        if -1 in train.attributes["rare"] and 0 not in train.attributes["rare"]:
            break
    half = (torch.arange(32) // 2 % 2).to(torch.int8)
    victims = dataclasses.replace(
        whole.victims, attributes={"odd": whole.victims.attributes["odd"], "rare": half.flip(0)}
    )
    gallery = dataclasses.replace(
        whole.gallery, attributes={"odd": whole.gallery.attributes["odd"], "rare": torch.ones(16, dtype=torch.int8)}
    )
    outcome = Attributes().run(
        dataclasses.replace(whole, attacker=own, victims=victims, gallery=gallery), lambda share: None
    )
    assert outcome.variants[0].name == "the paper's network"
    assert outcome.variants[0].ceiling > 0.6  # of the two, that of "odd" is learned


@pytest.mark.parametrize("of", ["victims", "attacker"])
def test_without_attributes_that_vary_it_is_skipped(of):
    whole = scene(PixelEdge(4))
    known = getattr(whole, of)
    same = dataclasses.replace(known, attributes={"odd": torch.ones_like(known.attributes["odd"])})
    assert Attributes().needs(dataclasses.replace(whole, **{of: same})).status == "skipped"
    none = dataclasses.replace(known, attributes={})
    assert Attributes().needs(dataclasses.replace(whole, **{of: none})).status == "skipped"
    assert Attributes().needs(whole) is None
