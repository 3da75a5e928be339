import pytest
import torch
from facemix.audit.span import basis, leftover, outside


def mixed(sources):
    """By a random orthogonal matrix."""
    mix = torch.linalg.qr(torch.randn(len(sources), len(sources), dtype=torch.float64)).Q
    return (mix @ sources.flatten(1).double()).view(sources.shape).float()


def test_a_mix_keeps_the_span():
    sources = torch.randn(5, 2, 4, 3)
    span = basis(mixed(sources))
    assert span.shape == (24, 5)
    assert torch.allclose(span.T @ span, torch.eye(5, dtype=torch.float64))
    assert float(outside(span, sources).max()) < 1e-10


def test_what_is_outside_is_a_share_of_energy():
    span = torch.eye(4, dtype=torch.float64)[:, :1]
    rows = torch.tensor([[3.0, 4.0, 0, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]])
    assert outside(span, rows).tolist() == pytest.approx([16 / 25, 0, 1, 1])


def test_more_rows_than_values_span_everything():
    assert float(outside(basis(torch.randn(9, 1, 2, 2)), torch.randn(3, 1, 2, 2)).max()) < 1e-10


def test_what_is_left_of_a_mix_without_the_known_sources():
    sources = torch.randn(8, 2, 4, 3)
    found = leftover(mixed(sources), sources[:7])
    assert found.shape == (1, 2, 4, 3)
    cosine = torch.cosine_similarity(found.flatten(), sources[7].flatten(), dim=0)
    assert float(cosine.abs()) == pytest.approx(1, abs=1e-6)


def test_of_sources_that_are_left_their_products_are_found():
    """So that an orthogonal matrix is all that is between them and what was found."""
    sources = torch.randn(8, 1, 6, 5)
    found, missing = (rows.flatten(1) for rows in (leftover(mixed(sources), sources[3:]), sources[:3]))
    torch.testing.assert_close(found.T @ found, missing.T @ missing, rtol=0, atol=1e-4)


def test_sources_that_are_left_span_what_is_found():
    sources = torch.randn(8, 1, 6, 5)
    found = leftover(mixed(sources), sources[3:])
    assert found.shape == (3, 1, 6, 5)
    assert float(outside(basis(found), sources[:3]).max()) < 1e-6
