import pytest
import torch
from facemix.audit.moments import Moments


def drawn(count, scales, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(scales), generator=generator, dtype=torch.float64) * scales


def test_of_many_rows_they_are_what_is_measured():
    rows = drawn(1000, torch.tensor([4.0, 2.0, 1.0, 0.5]))
    moments = Moments(rows)
    found = moments.filtered(torch.eye(4), lambda m: m)
    torch.testing.assert_close(found, rows.T @ rows / 1000, rtol=0.01, atol=0.05)
    assert moments.mean == pytest.approx(rows.square().mean().item())


def test_of_few_rows_the_unseen_directions_are_not_empty():
    """Rows alike in all directions: however few they are, so are their moments."""
    moments = Moments(drawn(10, torch.ones(400)))
    assert moments.mean == pytest.approx(1, rel=0.1)
    others = drawn(3, torch.ones(400), seed=1)
    found = moments.filtered(others, lambda m: m)
    torch.testing.assert_close(found, others, rtol=0.1, atol=0.3)


def test_functions_are_of_the_whole_matrix():
    moments, rows = Moments(drawn(20, torch.linspace(1, 3, 50))), drawn(5, torch.ones(50))
    once = moments.filtered(moments.filtered(rows, torch.sqrt), torch.sqrt)
    torch.testing.assert_close(once, moments.filtered(rows, lambda m: m))
    torch.testing.assert_close(moments.filtered(moments.filtered(rows, lambda m: 1 / m), lambda m: m), rows)


@pytest.mark.parametrize("rows", [torch.zeros(3, 5), torch.ones(1, 5)])
def test_rows_that_tell_little_give_finite_values(rows):
    moments = Moments(rows)
    assert moments.mean > 0
    assert moments.filtered(rows, lambda m: 1 / (m + moments.mean)).isfinite().all()
