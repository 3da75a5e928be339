"""sample_orthogonal: orthogonality, the Haar measure's moments, bounds. Seeded, so that a bound holds or never does.

Statistical bounds are 5 standard errors of the mean, the variances being those of the Haar measure or measured.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from facemix_ops import reference, sample_orthogonal
from facemix_ops.ops.sample_orthogonal import _orthogonal_cuda, _permutation_cuda, sample_permutation
from facemix_ops.rules import MAX_GROUP, MIN_GROUP, least_coeff

SIGMAS = 5.0


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_mean(samples: Tensor, expected: float) -> None:
    """The mean of independent samples (dimension 0) is ``expected`` to SIGMAS standard errors, everywhere."""
    error = samples.std(0) / math.sqrt(samples.shape[0])
    assert ((samples.mean(0) - expected).abs() <= SIGMAS * error).all()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 16, 33, 64])
@pytest.mark.parametrize("seeded", [True, False])
def test_orthogonal(size: int, seeded: bool) -> None:
    a = sample_orthogonal(20, size, generator=gen() if seeded else None)
    assert a.shape == (20, size, size)
    assert a.dtype == torch.float64
    assert (a.transpose(1, 2) @ a - torch.eye(size, dtype=a.dtype)).abs().max() < 1e-12


@pytest.mark.parametrize("size", [2, 3, 8, 16])
def test_haar_moments(size: int) -> None:
    """Every entry: mean 0, E a^2 = 1/S, E a^4 = 3/(S(S+2)); pairs: E a11^2 a22^2, E a11 a22 a12 a21 (Weingarten)."""
    n = size
    a = sample_orthogonal(20000, n, generator=gen(size))
    assert_mean(a.flatten(1), 0.0)
    assert_mean(a.flatten(1) ** 2, 1 / n)
    assert_mean(a.flatten(1) ** 4, 3 / (n * (n + 2)))
    weingarten = n * (n + 2) * (n - 1)
    assert_mean(a[:, 0, 0] ** 2 * a[:, 1, 1] ** 2, (n + 1) / weingarten)
    assert_mean(a[:, 0, 0] * a[:, 1, 1] * a[:, 0, 1] * a[:, 1, 0], -1 / weingarten)


@pytest.mark.parametrize("size", [2, 3, 8])
def test_haar_traces_and_determinants(size: int) -> None:
    """E tr = 0, E tr^2 = 1, E tr(A^2) = 1 (Diaconis and Shahshahani); half of them are reflections."""
    a = sample_orthogonal(20000, size, generator=gen(100 + size))
    trace = a.diagonal(dim1=1, dim2=2).sum(1)
    assert_mean(trace, 0.0)
    assert_mean(trace**2, 1.0)
    assert_mean((a @ a).diagonal(dim1=1, dim2=2).sum(1), 1.0)
    assert_mean(torch.linalg.det(a).sign(), 0.0)


def test_as_the_reference_samples() -> None:
    """The largest entry has the distribution that PyTorch's QR gives: Kolmogorov and Smirnov at 1e-4."""
    n = 4000
    ours = sample_orthogonal(n, 8, generator=gen()).abs().amax((1, 2)).sort().values
    theirs = reference.sample_orthogonal(n, 8, gen(1)).abs().amax((1, 2)).sort().values
    grid = torch.cat([ours, theirs])
    distance = (torch.searchsorted(ours, grid) - torch.searchsorted(theirs, grid)).abs().max().item() / n
    assert distance < math.sqrt(-math.log(1e-4 / 2) / n)


@pytest.mark.parametrize(("size", "bound"), [(2, 0.8), (3, 0.75), (4, 0.7), (5, 0.72), (8, 0.6), (16, 0.5), (64, 0.4)])
@pytest.mark.parametrize("seeded", [True, False])
def test_max_coeff_is_met(size: int, bound: float, seeded: bool) -> None:
    a = sample_orthogonal(30, size, max_coeff=bound, generator=gen() if seeded else None)
    assert a.abs().max() <= bound
    assert (a.transpose(1, 2) @ a - torch.eye(size, dtype=a.dtype)).abs().max() < 1e-12


def test_bounded_distribution_is_symmetric() -> None:
    """Like the Haar measure, it prefers no row, column or sign: same moments for every entry, S = 8 under 0.6."""
    a = sample_orthogonal(6000, 8, max_coeff=0.6, generator=gen()).flatten(1)
    assert_mean(a, 0.0)
    assert_mean(a**2, 1 / 8)
    fourth = a**4
    assert_mean(fourth, fourth.mean().item())
    assert_mean(torch.linalg.det(a.reshape(-1, 8, 8)).sign(), 0.0)


def test_bounded_2x2_is_haar_restricted() -> None:
    """For S = 2 the restricted measure is known: an angle, uniform where both |cos| and |sin| stay below the bound."""
    bound, n = 0.8, 20000
    a = sample_orthogonal(n, 2, max_coeff=bound, generator=gen())
    angle = torch.atan2(a[:, 0, 1].abs(), a[:, 0, 0].abs())  # folded into [0, pi/2]
    low, high = math.acos(bound), math.asin(bound)
    place = ((angle - low) / (high - low)).sort().values
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert (place - uniform).abs().max() < math.sqrt(-math.log(1e-4 / 2) / (2 * n))


@pytest.mark.parametrize(
    ("size", "groups"), [(2, 300), (3, 300), (5, 300), (6, 300), (7, 300), (8, 300), (17, 20), (64, 1)]
)
def test_least_bound_is_met_always(size: int, groups: int) -> None:
    """Of the walks for groups of 3 four in ten get stuck, of those for 6 one in twenty: others take their place."""
    a = sample_orthogonal(groups, size, max_coeff=least_coeff(size), generator=gen())
    assert a.abs().max() <= least_coeff(size)
    assert (a.transpose(1, 2) @ a - torch.eye(size, dtype=a.dtype)).abs().max() < 1e-12


def test_least_bounds() -> None:
    """They leave room above 1/sqrt(S), and the kernel, which would walk for ever below one, has the same."""
    assert [least_coeff(size) for size in (1, 2, 4, 8, 64)] == [1.0, 0.794, 0.63, 0.5, 0.25]
    for size in range(MIN_GROUP, MAX_GROUP + 1):
        least = least_coeff(size)
        torch.ops.facemix_ops.sample_orthogonal(0, size, least, None)
        with pytest.raises(
            ValueError, match=f"max_coeff must be at least {least:.6f} for groups of {size} and at most 1"
        ):
            torch.ops.facemix_ops.sample_orthogonal(0, size, math.nextafter(least, 0), None)


@pytest.mark.parametrize("bound", [0.0, -1.0, 8**-0.5, 0.499, 1.01, float("nan"), float("inf")])
def test_impossible_bound(bound: float) -> None:
    rule = "sample_orthogonal: max_coeff must be at least 0.5 for groups of 8 and at most 1, got"
    with pytest.raises(ValueError, match=rule):
        sample_orthogonal(1, 8, max_coeff=bound)


def test_generator() -> None:
    """Reproducible from a generator, which moves on; without one no two calls agree."""
    g = gen(5)
    first, second = sample_orthogonal(3, 4, generator=g), sample_orthogonal(3, 4, generator=g)
    assert torch.equal(first, sample_orthogonal(3, 4, generator=gen(5)))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    third = sample_orthogonal(3, 4)
    torch.manual_seed(0)
    assert not torch.equal(third, sample_orthogonal(3, 4))


@pytest.mark.parametrize(("size", "bound"), [(4, 1.0), (4, 0.8), (65, 1.0)])
def test_what_runs_for_cuda(size: int, bound: float) -> None:
    """Given a seed on the CPU, it draws on the CPU: its arguments are right, and bounds kept."""
    seed = torch.tensor(5)
    expected = torch.ops.facemix_ops.sample_orthogonal(3, size, bound, seed)
    assert torch.equal(_orthogonal_cuda(3, size, bound, seed), expected)
    assert torch.equal(_permutation_cuda(9, seed), torch.ops.facemix_ops.sample_permutation(9, seed))


def test_groups_differ() -> None:
    a = sample_orthogonal(50, 3, generator=gen()).flatten(1)
    assert a.unique(dim=0).shape[0] == 50
    assert sample_orthogonal(0, 3).shape == (0, 3, 3)


def test_permutation_is_uniform() -> None:
    """Chi-square over all 120 orders of 5, and over every (position, value) of 12: far inside the 1e-6 tail."""
    g, n = gen(), 12000
    draws = torch.stack([sample_permutation(5, generator=g) for _ in range(n)])
    _, counts = (draws * torch.tensor([10000, 1000, 100, 10, 1])).sum(1).unique(return_counts=True)
    assert len(counts) == 120
    chi = ((counts - n / 120) ** 2 / (n / 120)).sum().item()
    assert 119 - SIGMAS * math.sqrt(2 * 119) < chi < 119 + SIGMAS * math.sqrt(2 * 119)
    draws = torch.stack([sample_permutation(12, generator=g) for _ in range(n)])
    hits = torch.nn.functional.one_hot(draws, 12).double().sum(0)
    assert ((hits - n / 12).abs() < SIGMAS * math.sqrt(n / 12)).all()


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_is_one(n: int) -> None:
    assert torch.equal(sample_permutation(n).sort().values, torch.arange(n))
