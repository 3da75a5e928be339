import pytest
import torch
from facemix.audit.matching import amari
from facemix.audit.orthogonal import NON_NEGATIVE, SPARSE, Contrast, rotate

import facemix_ops as fo


def mixed(sources, groups):
    """`groups` mixtures of sources [b, t], by random orthogonal matrices: [groups, b, t], and the matrices."""
    size = len(sources)
    key = fo.MixKey.sample(groups * size, size, generator=torch.Generator().manual_seed(0)).coeffs
    return (key @ sources.double()).float(), key


def rectified(size, samples):
    """Sources as after a ReLU, which correlate with each other as faces do."""
    return (torch.randn(size, samples) + 1.5 * torch.randn(samples)).clamp(min=0)


@pytest.mark.parametrize(
    ("sources", "contrast"),
    [(rectified, NON_NEGATIVE), (lambda b, t: torch.distributions.Laplace(0, 1).sample((b, t)), SPARSE)],
    ids=["non-negative sources that correlate", "sparse sources"],
)
def test_it_finds_the_matrix_and_knows_it(sources, contrast):
    known, key = mixed(sources(5, 2000), 3)
    found = rotate(known, contrast, torch.Generator().manual_seed(1))
    eye = torch.eye(5).expand(3, 5, 5)
    torch.testing.assert_close(found.matrix @ found.matrix.mT, eye, rtol=0, atol=1e-5)
    assert max(amari(w.double() @ a) for w, a in zip(found.matrix, key, strict=True)) < 0.05
    assert found.agreement.min() > 0.95
    assert found.ended.all()


def test_whitening_would_not_find_sources_that_correlate():
    """Why there is such a search at all."""
    known, key = mixed(rectified(5, 2000), 1)
    values, vectors = torch.linalg.eigh(torch.cov(known[0]))
    white = torch.diag(values.rsqrt()) @ vectors.T
    best = min(amari(torch.linalg.qr(torch.randn(5, 5))[0].double() @ white.double() @ key[0]) for _ in range(200))
    assert best > 0.1


@pytest.mark.parametrize("contrast", [NON_NEGATIVE, SPARSE])
def test_noise_has_nothing_to_find_and_it_knows_it(contrast):
    assert rotate(torch.randn(4, 8, 2000), contrast, torch.Generator().manual_seed(1)).agreement.mean() < 0.85


def test_it_goes_by_the_start_that_ends_with_the_least_loss():
    losses = []
    contrast = Contrast(lambda z: losses.append(NON_NEGATIVE.loss(z)) or losses[-1], NON_NEGATIVE.step)
    found = rotate(torch.randn(4, 5, 200), contrast, torch.Generator().manual_seed(1), steps=1)
    (every,) = losses
    torch.testing.assert_close(found.loss, every.mean(2).amin(1))
    assert (found.loss < every.mean(2).amax(1)).all()


def test_a_search_that_runs_out_of_steps_has_not_ended():
    known, _ = mixed(rectified(8, 500), 1)
    assert not rotate(known, NON_NEGATIVE, torch.Generator().manual_seed(1), steps=2).ended.any()
