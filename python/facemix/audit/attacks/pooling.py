"""Several requests together."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from torch import Tensor

from ..attack import Attack, Progress
from ..display import compared
from ..matching import likeness
from ..outcome import Outcome, Variant, interval
from ..regrouped import regrouped
from ..repeats import repeated
from ..request import Request, Truth
from ..reuse import reused
from ..scene import Scene, send
from ..separation import unmixed
from ..span import basis

__all__ = ["Pooling", "common"]

BUDGET = {"quick": (8, 4), "full": (32, 8)}  # photographs, how often each is sent
MOST = 64  # times, where others drop out late
ALSO = 0.1  # of other photographs at most are in all requests of one, on average


class Pooling(Attack):
    """A photograph is sent several times, each time with others and under secrets of its own: what every edge does when
    it is shown the same photograph again. A mixed request spans its photographs, so that the photograph lies in the
    span of each: the direction that they have in common is computed, not searched for. Where it has several sources,
    they are un-mixed of what is in common. Where nothing is mixed, it is the average of the copies. The floor is how
    like a stranger's photograph it is; the ceiling, the same of rows without protection. Further figures say what a key
    or blinders would give away that are used twice, and photographs that are all sent again in other groups, or in the
    same.
    """

    name = "pooling"
    title = "What do several requests show that have something in common?"
    knows = "which requests hold the same photograph (the direction that they share shows it)"
    source = "common subspace: Kettenring 1971 (MAXVAR), by singular values; averaging"

    def needs(self, scene: Scene) -> Outcome | None:
        others, companions = len(scene.victims) - 1, scene.edge.group_size - 1
        if others > companions and _times(others, companions) <= MOST:
            return None
        return Outcome("skipped", "It needs more victims: of so few others are in all requests as well.")

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        photographs, times = BUDGET[scene.effort]
        times = max(times, _times(len(scene.victims) - 1, scene.edge.group_size - 1))
        order = torch.randperm(len(scene.victims), generator=scene.generator(self.name))[:photographs]
        firsts, sources, found, result, ceiling, once = [], [], [], [], [], []
        for turn, photograph in enumerate(order.tolist()):
            requests = [_with(scene, photograph, number) for number in range(times)]
            truth = requests[0].truth
            source = truth.sources[truth.image == 0]
            pooled, bare = (
                unmixed(scene, common(rows, len(source)), self.name, photograph)
                for rows in ([each.received for each in requests], [each.truth.sources for each in requests])
            )
            result.append(float(likeness(source, pooled).mean()))
            ceiling.append(float(likeness(source, bare).mean()))
            once.append(float(likeness(source, requests[0].received).mean()))
            firsts.append(requests[0].received)
            sources.append(source)
            found.append(pooled)
            progress((turn + 1) / (photographs + 1))
        what_if: tuple[Variant, ...] = ()
        if scene.edge.group_size > 1:
            what_if = (*reused(scene), *regrouped(scene), *repeated(scene))
        high, alone = map(fmean, (result, once))
        image = torch.arange(len(order)).repeat_interleave(len(sources[0]))
        empty = torch.empty(0)
        together = Request(torch.cat(firsts), Truth(torch.cat(sources), image, empty, empty))
        return Outcome(
            "done",
            measure="mean |correlation| with the photograph's features",
            floor=_strangers(scene, order, sources, found),
            result=high,
            ceiling=fmean(ceiling),
            interval=interval(result, scene.seed_of(self.name)),
            says=f"A photograph that is sent {times} times comes out at a correlation of {high:.3f} "
            f"(sent once, without any attack: {alone:.2f}).",
            variants=(Variant("sent once: the row that is most like it", alone), *what_if),
            pictures=compared(scene, order, together, {f"from {times} requests": torch.cat(found)}),
        )


def common(received: list[Tensor], count: int) -> Tensor:
    """What the rows of all requests come closest to having in common.

    The directions V that are in all spans are B X, with X the sources in common and B unknown. Rows are R = Q [X; Y],
    with Q orthogonal and Y the other sources of a request, so that V R^+ = [B 0] Q'. Its square is B B', which tells B,
    and so X, but for an orthogonal matrix.

    Args:
        received: float32 [b, c, h, w] each.
        count: how many sources.

    Returns:
        float32 [count, c, h, w], an orthogonal matrix times the sources. Where it is one, it is that, of any sign.
    """
    _, _, directions = torch.linalg.svd(torch.cat([basis(rows) for rows in received], 1).T, full_matrices=False)
    shared = directions[:count]
    squares = [known @ known.T for known in (shared @ torch.linalg.pinv(rows.flatten(1).double()) for rows in received)]
    values, axes = torch.linalg.eigh(torch.stack(squares).mean(0))
    sources = axes / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt() @ axes.T @ shared
    return sources.float().view(count, *received[0].shape[1:])


def _times(others: int, companions: int) -> int:
    """How many requests of one photograph it takes until others have dropped out."""
    return math.ceil(math.log(ALSO / others) / math.log(companions / others)) if companions else 1


def _with(scene: Scene, photograph: int, number: int) -> Request:
    """A request of one group, whose first image is `photograph`; the others are other victims."""
    generator = scene.generator("pooling", photograph, number)
    others = torch.randperm(len(scene.victims), generator=generator)
    others = others[others != photograph][: scene.edge.group_size - 1]
    return send(scene.edge, scene.victims, torch.cat((torch.tensor([photograph]), others)), generator)


def _strangers(scene: Scene, rows: Tensor, sources: list[Tensor], found: list[Tensor]) -> float:
    """How like the sources of a photograph is what was found for others, of other people where people are known."""
    who = rows if scene.victims.identity is None else scene.victims.identity[rows]
    pairs = [(i, j) for i, a in enumerate(who) for j, b in enumerate(who) if a != b]
    return sum(float(likeness(sources[i], found[j]).mean()) for i, j in pairs) / max(len(pairs), 1)
