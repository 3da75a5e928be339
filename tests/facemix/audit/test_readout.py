import torch
from facemix.audit.readout import Readout


def test_noise_on_rows_to_read_counts_as_in_rows_to_learn_from():
    """Of many noisy copies of the rows, the products of columns would be these, and on the diagonal the noise."""
    rows, targets = torch.randn(30, 1, 2, 5), torch.randn(30, 3)
    found = Readout(rows, targets, 2 * torch.randn(800, 1, 2, 5))(rows)
    x = rows.flatten(1)
    expected = x @ torch.linalg.solve(x.T @ x + 30 * 2**2 * torch.eye(10), x.T @ targets)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)
