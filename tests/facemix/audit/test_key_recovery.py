import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, RectifiedEdge, scene
from facemix.audit.attacks.key_recovery import KeyRecovery


def recover(edge):
    return KeyRecovery().run(scene(edge), lambda done: None)


@pytest.mark.parametrize("shuffle", [True, False])
def test_independent_sources_are_recovered(shuffle):
    outcome = recover(PixelEdge(4, shuffle=shuffle))
    assert outcome.status == "done"
    assert outcome.result > 0.9
    assert outcome.recovered > 0.9
    assert outcome.interval[0] < outcome.result < outcome.interval[1]


def test_sources_after_a_relu_are_recovered_exactly():
    outcome = recover(RectifiedEdge(8))
    assert outcome.result > 0.99
    assert "non-negative" in outcome.says
    assert {line.caption for line in outcome.pictures} >= {"photographs", "recovered"}


def test_every_way_is_measured_with_its_own_ceiling():
    variants = {variant.name: variant for variant in recover(PixelEdge(4)).variants}
    assert len(variants) == 5
    assert variants["FastICA, raw"].ceiling > 0.9


def test_a_one_time_pad_gives_nothing():
    outcome = recover(OneTimePad(4))
    assert outcome.status == "not converged" or outcome.recovered < 0.05


def test_there_is_no_key_where_nothing_is_mixed():
    assert KeyRecovery().needs(scene(PixelEdge(1))).status == "does not apply"
    assert KeyRecovery().needs(scene(PixelEdge(4))) is None


def test_an_attack_that_fails_on_unprotected_rows_is_not_a_result():
    """Normal noise has no independent components that could be told from its mixtures."""

    class NoiseEdge(PixelEdge):
        def clean(self, images):
            return torch.randn(len(images), 1, 24, 20, generator=torch.Generator().manual_seed(0))

    outcome = recover(NoiseEdge(8))
    assert outcome.status == "not converged"
    assert "unprotected" in outcome.reason
    assert outcome.recovered is None
