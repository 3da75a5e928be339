import pytest
import torch
from facemix.audit.matching import amari, correlation, matched

import facemix_ops as fo


def test_correlation_is_that_of_torch():
    rows = torch.randn(5, 2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(correlation(rows[:2], rows[2:]), torch.corrcoef(rows.flatten(1))[:2, 2:])


def test_a_constant_row_is_like_nothing():
    assert correlation(torch.full((1, 9), 0.3), torch.randn(2, 9)).abs().max() < 1e-6


def test_a_match_is_one_to_one_with_the_largest_sum():
    which, value = matched(torch.tensor([[0.9, 0.8, 0.0], [0.9, 0.1, 0.0]]))
    assert which.tolist() == [1, 0]
    torch.testing.assert_close(value, torch.tensor([0.8, 0.9]).double(), rtol=0, atol=1e-6)


def test_sources_without_a_match_count_nothing():
    which, value = matched(torch.tensor([[0.2], [0.9]]))
    assert which.tolist() == [-1, 0]
    assert value[0] == 0


def test_the_amari_index_is_zero_for_a_permutation_of_any_signs_and_sizes_only():
    permuted = torch.diag(torch.tensor([2.0, -3.0, 0.5, 1.0]))[torch.tensor([2, 0, 3, 1])]
    assert amari(permuted) == pytest.approx(0)
    assert amari(torch.ones(4, 4)) == pytest.approx(1)
    key = fo.MixKey.sample(8, 8, generator=torch.Generator().manual_seed(0))
    assert 0.2 < amari(key.coeffs[0]) < 1
