"""Gaussian, QR, sign fix (Mezzadri 2007)."""

import torch
from torch import Tensor


def sample_orthogonal(groups: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Haar matrices, float64 [groups, size, size], from PyTorch's generator: for tests, never for keys."""
    q, r = torch.linalg.qr(torch.randn(groups, size, size, dtype=torch.float64, generator=generator))
    return q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
