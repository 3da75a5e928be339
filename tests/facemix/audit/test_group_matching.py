import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, RectifiedEdge, scene
from facemix.audit.attacks.group_matching import GroupMatching
from facemix.audit.grouping import balanced_clusters, decisive


def match(edge):
    return GroupMatching().run(scene(edge), lambda done: None)


def test_groups_of_sparse_sources_are_found_whole():
    outcome = match(RectifiedEdge(8))
    assert outcome.status == "done"
    assert outcome.variants[0].name == "share of groups recovered whole"
    assert outcome.variants[0].result == 1
    assert outcome.result > 0.95
    assert outcome.recovered > 0.9
    assert outcome.interval[0] <= outcome.result <= outcome.interval[1]


def test_the_curve_rises_from_nothing_to_all():
    (curve,) = match(RectifiedEdge(8)).curves
    assert (curve.false_positive[0], curve.true_positive[0]) == (0, 0)
    assert (curve.false_positive[-1], curve.true_positive[-1]) == (1, 1)
    assert len(curve.false_positive) <= 200
    area = torch.trapezoid(torch.tensor(curve.true_positive), torch.tensor(curve.false_positive))
    assert float(area) == pytest.approx(curve.auc, abs=0.03)  # which is a mean over rows


def test_a_one_time_pad_has_no_groups():
    outcome = match(OneTimePad(4))
    assert outcome.ceiling > 0.9
    assert outcome.recovered < 0.2
    assert outcome.variants[0].result < 0.2


def test_it_needs_groups():
    assert GroupMatching().needs(scene(PixelEdge(1))).status == "does not apply"
    assert GroupMatching().needs(scene(PixelEdge(8), people=4)).status == "does not apply"
    assert GroupMatching().needs(scene(PixelEdge(4))) is None


def test_clusters_are_balanced_and_the_best_ones():
    group = torch.arange(24).fmod(4)
    affinity = (group[:, None] == group).double() + 0.3 * torch.randn(24, 24, dtype=torch.float64)
    affinity = (affinity + affinity.T) / 2
    found = balanced_clusters(affinity, 6, torch.Generator().manual_seed(0))
    assert found.bincount().tolist() == [6] * 4
    assert all(len(found[group == number].unique()) == 1 for number in range(4))
    assert decisive(affinity, found) > decisive(affinity, torch.arange(24) // 6) + 1
    # How a row goes with itself says nothing, and statistics differ in it.
    assert decisive(affinity + 100 * torch.eye(24), found) == pytest.approx(decisive(affinity, found))


def test_noise_still_gives_balanced_clusters():
    found = balanced_clusters(torch.randn(12, 12, dtype=torch.float64), 3, torch.Generator().manual_seed(0))
    assert found.bincount().tolist() == [3] * 4
