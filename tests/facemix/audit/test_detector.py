"""What compares rows that are a source each, against the densities of normal numbers that it is made of."""

import pytest
import torch
from facemix.audit.detector import Singles
from facemix.audit.moments import Moments
from torch.distributions import MultivariateNormal

VALUES, NOISE = 6, 0.3
S = NOISE * torch.eye(VALUES).double()


@pytest.fixture
def expected():
    """What rows are like, and their second moments [VALUES, VALUES]."""
    moments = Moments(torch.linspace(0.2, 2, VALUES) * torch.randn(40, VALUES))
    return moments, moments.filtered(torch.eye(VALUES), lambda m: m)


def density(matrix, mean=0.0):
    return MultivariateNormal(torch.zeros(len(matrix)).double() + mean, matrix).log_prob


def test_a_row_is_a_source_by_how_likely_that_makes_it(expected):
    moments, m = expected
    rows, known = torch.randn(5, VALUES).double(), torch.randn(4, VALUES).double()
    found = Singles(moments, NOISE).holds(rows, known)
    wanted = torch.stack([(density(S, x)(rows) - density(m + S)(rows)).logsumexp(0) for x in known])
    torch.testing.assert_close(found - found[0], wanted - wanted[0])


def test_rows_have_a_source_in_common_by_how_likely_that_makes_them(expected):
    moments, m = expected
    sees, alone = Singles(moments, NOISE), density(m + S)
    together = density(torch.cat((torch.cat((m + S, m), 1), torch.cat((m, m + S), 1))))

    def wanted(one, other):
        pairs = torch.cat((one[:, None].expand(-1, len(other), -1), other.expand(len(one), -1, -1)), 2)
        return float((together(pairs) - alone(one)[:, None] - alone(other)).logsumexp((0, 1)))

    one, *others = torch.randn(3, 4, VALUES).double()
    first, second = (sees.meet(one, other) - wanted(one, other) for other in others)
    assert first == pytest.approx(second, abs=1e-6)
