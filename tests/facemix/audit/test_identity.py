import dataclasses

import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, scene
from facemix.audit.attacks import identity
from facemix.audit.attacks.identity import Identity
from facemix.audit.balance import by_victim, class_balanced
from facemix.audit.networks import answers, classifier, fit, steps
from facemix.audit.outcome import interval
from torch.nn import functional as F


class NearlyPlain(PixelEdge):
    """Row k is nearly image k: a key as bad as can be."""

    def send(self, images, generator, reuse=None):
        request = super().send(images, generator, reuse)
        weights = 0.995 * torch.eye(len(images), dtype=torch.float64) + 0.1 * request.truth.weights
        received = (weights @ request.truth.sources.flatten(1).double()).float().view_as(request.received)
        return dataclasses.replace(
            request, received=received, truth=dataclasses.replace(request.truth, weights=weights)
        )


def photographs(faces):
    return {image.tobytes() for image in faces.images}


def attack(edge, **more):
    return Identity().run(scene(edge, **more), lambda share: None)


@pytest.mark.parametrize("edge", [PixelEdge(1), NearlyPlain(4, shuffle=False)], ids=["plain", "nearly plain"])
def test_it_names_whose_row_it_is_where_the_row_shows_it(edge):
    outcome = attack(edge)
    assert outcome.status == "done"
    assert outcome.floor == 1 / 16
    assert outcome.result > 0.9
    assert outcome.ceiling > 0.9


def test_of_four_mixed_images_it_names_one_so_it_is_right_once_in_four_times():
    outcome = attack(PixelEdge(4))
    anybody = outcome.variants[-1]
    assert anybody.name == "anybody who is in the row"
    assert anybody.result > 0.95
    assert 0.17 < outcome.result < 0.33
    assert 0.1 < outcome.recovered < 0.3


def test_it_learns_nothing_from_a_one_time_pad():
    outcome = attack(OneTimePad(4))
    assert outcome.status == "done"
    assert outcome.result < outcome.floor + 0.06
    assert outcome.variants[-1].result < outcome.variants[-1].floor + 0.1


def test_it_trains_with_most_photographs_and_chooses_with_the_others(monkeypatch):
    """Both classifiers."""
    seen = {"rehearsed": [], "rehearse": []}
    for name, called in seen.items():
        made = getattr(identity, name)
        monkeypatch.setattr(
            identity,
            name,
            lambda edge, faces, *more, made=made, called=called: called.append(faces) or made(edge, faces, *more),
        )
    attack(PixelEdge(4))
    (read, *_), (train, held, *_) = seen["rehearsed"], seen["rehearse"]
    assert photographs(read) == photographs(train)
    assert not photographs(train) & photographs(held)
    assert len(train) / (len(train) + len(held)) == pytest.approx(identity.TRAINED, abs=0.06)


def test_victims_who_are_not_in_the_gallery_do_not_count():
    """Their rows have no right answer."""
    whole = scene(PixelEdge(1))
    few = dataclasses.replace(whole, gallery=whole.gallery.take(torch.arange(0, 16, 2)))
    outcome = Identity().run(few, lambda share: None)
    assert outcome.status == "done"
    assert outcome.result > 0.9
    assert outcome.ceiling > 0.9


def test_two_photographs_a_person_are_enough_to_choose_with():
    """One is in the gallery, so that four fifths of each person's, rounded, are all of them."""
    whole = scene(PixelEdge(1), people=32)
    one = dataclasses.replace(whole, attacker=whole.attacker.take(torch.arange(0, 256, 8)))
    assert Identity().needs(one) is None
    assert Identity().run(one, lambda share: None).status == "done"


def test_where_labels_are_wrong_it_has_not_converged():
    whole = scene(PixelEdge(4))
    wrong = torch.randint(16, (128,), generator=torch.Generator().manual_seed(0))
    confused = dataclasses.replace(whole, attacker=dataclasses.replace(whole.attacker, identity=wrong))
    confused = dataclasses.replace(
        confused, gallery=dataclasses.replace(whole.gallery, identity=whole.gallery.identity.flip(0))
    )
    assert Identity().run(confused, lambda share: None).status == "not converged"


def test_without_photographs_of_the_victims_people_it_is_skipped():
    whole = scene(PixelEdge(4))
    strangers = dataclasses.replace(whole.attacker, identity=whole.attacker.identity + 16)
    assert Identity().needs(dataclasses.replace(whole, attacker=strangers)).status == "skipped"
    assert Identity().needs(whole) is None


def test_balanced_success_counts_rare_classes_like_others():
    hits, labels = torch.tensor([True, True, True, False]), torch.tensor([0, 0, 0, 1])
    assert class_balanced(hits, labels).mean() == 0.5
    values = by_victim(class_balanced(hits, labels), torch.tensor([7, 7, 3, 3]))
    assert sum(values) / 2 == pytest.approx(0.5)


def test_victims_with_as_many_values_each_get_their_means():
    values = torch.tensor([1, 0, 0, 1, 1, 1, 0, 0, 0], dtype=torch.float64)
    victims = torch.tensor([5, 2, 5, 9, 9, 9, 2, 5, 2])
    assert by_victim(values, victims) == pytest.approx([0, 1 / 3, 1])


def test_what_is_always_right_has_no_interval_whatever_the_classes():
    values = by_victim(
        class_balanced(torch.ones(6, dtype=torch.bool), torch.tensor([0, 0, 0, 1, 1, 2])), torch.arange(6) // 4
    )
    assert values == pytest.approx([1, 1])


def test_its_interval_is_that_of_a_balanced_success():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(2000, generator=generator) < 0.1).long()
    drawn = [torch.rand(2000, generator=generator) < torch.where(labels == 1, 0.5, 0.8) for _ in range(200)]
    low, high = interval(class_balanced(drawn[0], labels).tolist(), 0)
    spread = torch.stack([class_balanced(hits, labels).mean() for hits in drawn]).std()
    assert high - low == pytest.approx(4 * float(spread), rel=0.2)


def test_the_network_learns_and_is_the_same_again():
    generator = torch.Generator().manual_seed(0)
    rows, labels = torch.randn(64, 4, 9, 7, generator=generator), torch.arange(64) % 2
    rows[labels == 1] += 0.5
    said = []
    for _ in range(2):
        network, seen = classifier(rows.shape[1:], 2, seed=5), []
        fit(network, [(rows, labels)] * 20, 20, F.cross_entropy, seen.append)
        assert seen[-1] == 1
        said.append(answers(network, rows))
    torch.testing.assert_close(said[0], said[1])
    assert (said[0].argmax(1) == labels).all()


def test_an_attacker_with_many_photographs_trains_longer():
    assert [steps("full", n) for n in (4, 500)] == [200, 1000]
    assert steps("quick", 500) == 40
