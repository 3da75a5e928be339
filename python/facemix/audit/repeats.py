"""What an attacker gets when the same group is sent again and again, under a key of its own each time.

Where keys are uniformly random (Haar) that is nothing: whoever has one request can turn its rows at random as well.
Keys below a bound on the coefficients are not: their rows lie in a cube, and whoever sees many rows sees its axes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .matching import likeness
from .outcome import Variant
from .scene import Scene, send

__all__ = ["axes", "repeated"]

BUDGET = {"quick": (2, 8), "full": (4, 16)}  # groups, how often each is sent
STARTS, STEPS = 4, 300


def repeated(scene: Scene) -> Iterator[Variant]:
    """How like its photographs is what comes out of a group, of an edge that mixes. The floor: its rows, sent once."""
    groups, times = BUDGET[scene.effort]
    result, floor = [], []
    for number in range(groups):
        rows = scene.rows(number, 1)
        requests = [
            send(scene.edge, scene.victims, rows, scene.generator("repeats", number, time)) for time in range(times)
        ]
        sources, first = requests[0].truth.sources, requests[0].received
        if len(first) != scene.edge.group_size:
            return  # photographs that are sent in parts make several groups, which are drawn
        received = [request.received.flatten(1).double() for request in requests]
        turned = torch.linalg.pinv(received[0])
        found = axes(torch.cat([each @ turned for each in received]), scene.generator("axes", number)).T @ received[0]
        result.append(float(likeness(sources, found).mean()))
        floor.append(float(likeness(sources, first).mean()))
    name = f"if the same group were sent {times} times: correlation with its photographs"
    yield Variant(name, sum(result) / groups, sum(floor) / groups)


def axes(rows: Tensor, generator: torch.Generator) -> Tensor:
    """The orthogonal directions along which `rows` are the least spread: where the sum of fourth powers is the least.

    With requests R_k = Q_k X of one group, R_k R_1^+ = Q_k Q_1' is known. Its rows are those of Q_k, turned by Q_1.

    Args:
        rows: float64 [n, s].
        generator: of the starts.

    Returns:
        float64 [s, s], a column each: of rows turned by Q_1 the columns of Q_1, in some order, of any sign.
    """
    size, tries = rows.shape[1], []
    for _ in range(STARTS):
        found = torch.linalg.qr(torch.randn(size, size, dtype=rows.dtype, generator=generator)).Q
        for _ in range(STEPS):
            slope = rows.T @ (rows @ found) ** 3 / len(rows)
            left, _, right = torch.linalg.svd(found - size * slope)
            found = left @ right
        tries.append(found)
    return min(tries, key=lambda found: float(((rows @ found) ** 4).sum()))
