"""The mean derivative of a network's part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from tqdm import tqdm

__all__ = ["average_jacobian"]

BATCH = 32  # points whose intermediate results lie in memory at once


def average_jacobian(function: Callable[[Tensor], Tensor], points: Tensor, progress: bool = False) -> Tensor:
    """Return the mean over `points` of the derivative of `function` there.

    A backward pass for each output: of the parts of a network outputs are fewer than inputs.

    Args:
        function: [B, ...] -> [B, outputs], row by row.
        points: [N, ...], N at least 1; inputs in all is the size of a row.
        progress: show a bar.

    Returns:
        [outputs, inputs], in the dtype of `points`; the sums are float64's.
    """
    batches = points.split(BATCH)
    total: Tensor | None = None
    with torch.enable_grad(), tqdm(desc="collapse", unit="row", disable=None if progress else True) as bar:
        for batch in batches:
            x = batch.detach().requires_grad_()
            y = function(x)
            if total is None:
                total = torch.zeros(y.shape[1], x[0].numel(), dtype=torch.float64, device=x.device)
                bar.reset(y.shape[1] * len(batches))
            for number, output in enumerate(y.sum(0)):
                (derivative,) = torch.autograd.grad(output, x, retain_graph=True)
                total[number] += derivative.sum(0, dtype=torch.float64).flatten()
                bar.update()
    assert total is not None  # there is a point
    return (total / len(points)).to(points.dtype)
