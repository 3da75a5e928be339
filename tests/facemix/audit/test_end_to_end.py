import pytest
import torch
from audit_scenes import HalvedEdge, OneTimePad, PixelEdge, RectifiedEdge, linear, scene
from facemix.audit.attacks.end_to_end import AMARI, FACES, PEOPLE, SAME, EndToEnd
from facemix.audit.gallery import nearest_people
from facemix.audit.recovery import groups_of, recover


def attack(edge):
    return EndToEnd().run(scene(edge, cloud=linear), lambda done: None)


@pytest.mark.parametrize("shuffle", [True, False])
def test_faces_come_out_of_a_pool_of_sparse_features(shuffle):
    outcome = attack(RectifiedEdge(8, shuffle=shuffle))
    figures = {variant.name: variant for variant in outcome.variants}
    assert outcome.status == "done"
    assert outcome.result > 0.98
    assert outcome.recovered > 0.95
    assert figures[FACES].result > 0.95
    assert figures[AMARI].result > 0.98 > figures[AMARI].floor
    assert figures[PEOPLE].result > 0.95
    assert figures[SAME].result > 0.95
    assert "recovered" in [line.caption for line in outcome.pictures]


def test_nothing_comes_out_of_a_one_time_pad():
    outcome = attack(OneTimePad(4))
    figures = {variant.name: variant for variant in outcome.variants}
    assert outcome.status == "not converged" or outcome.recovered < 0.05
    assert figures[FACES].result == 0
    assert figures[PEOPLE].result < 0.25
    assert figures[SAME].result < 0.65


def test_people_are_not_compared_without_outputs_nor_in_parts():
    for known in (scene(RectifiedEdge(4)), scene(HalvedEdge(4), cloud=linear)):
        outcome = EndToEnd().run(known, lambda done: None)
        assert SAME not in [variant.name for variant in outcome.variants]


def test_it_does_not_apply_where_nothing_is_mixed():
    assert EndToEnd().needs(scene(PixelEdge(1))).status == "does not apply"


def test_the_matrix_is_what_was_done_to_the_pool():
    known = scene(RectifiedEdge(4))
    pool = known.request(0).received
    found = recover(known, pool, 0)
    expected = (found.matrix @ pool.flatten(1).double()).float().view_as(pool)
    torch.testing.assert_close(found.rows, expected, rtol=0, atol=1e-5)


def test_every_row_is_in_one_group():
    known = scene(PixelEdge(4))
    groups = groups_of(known, known.request(0).received, 0)
    assert groups.shape == (8, 4)
    assert sorted(groups.flatten().tolist()) == list(range(32))


def test_people_are_named_by_their_photograph_of_any_sign_and_size():
    known = scene(PixelEdge(1))
    photographs = known.edge.clean(torch.from_numpy(known.victims.images))
    assert torch.equal(nearest_people(known, -3 * photographs), known.victims.identity)
