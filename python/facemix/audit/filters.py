"""What attacks make of received rows before they look for statistics: filters commute with mixing, pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FILTERS", "gradient", "laplacian", "log_energy", "raw"]

# Of a row's mean energy: what is added before the logarithm. So small that places where nothing is stand out.
QUIET = 1e-4


def raw(rows: Tensor) -> Tensor:
    """Rows float32 [b, c, h, w] as samples [b, c * h * w]."""
    return rows.flatten(1)


def gradient(rows: Tensor) -> Tensor:
    """Differences of neighbours in a line, then in a column: [b, c, h, w] -> [b, 2 * c * h * w]."""
    padded = F.pad(rows, (0, 1, 0, 1), mode="replicate")
    across = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    down = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    return torch.cat((across.flatten(1), down.flatten(1)), 1)


def laplacian(rows: Tensor) -> Tensor:
    """Four times a value, minus its four neighbours: [b, c, h, w] -> [b, c * h * w]."""
    padded = F.pad(rows, (1, 1, 1, 1), mode="replicate")
    around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return (4 * rows - around).flatten(1)


def log_energy(samples: Tensor) -> Tensor:
    """Where rows have energy: log(samples^2), [b, t] -> [b, t], less its mean over the rows, which all rows share."""
    energy = samples.square()
    logarithm = (energy + QUIET * energy.mean(1, keepdim=True)).clamp(min=torch.finfo(energy.dtype).tiny).log()
    return logarithm - logarithm.mean(0)


FILTERS = {"raw": raw, "gradient": gradient, "laplacian": laplacian}
