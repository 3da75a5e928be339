"""Do two requests hold the same photograph?"""

from __future__ import annotations

import torch
from torch import Tensor

from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..control import judged, too_few
from ..curves import roc
from ..detector import detectors
from ..outcome import Outcome, interval
from ..scene import Scene, send

__all__ = ["Linking"]

TRIALS = {"quick": 32, "full": 256}
GROUPS = 2  # in a request: more take longer, and are linked as well
CHANCE = 0.5


class Linking(Attack):
    """Of two requests that hold the same photograph, each under secrets of its own, the rows span a direction in
    common: the smallest angle between what the two span is zero, and of other requests it is not. Where nothing is
    mixed, the rows of the one are compared with those of the other. Beneath noise, directions count by what other
    photographs have in them, see `facemix.audit.detector`; where there is none, that changes nothing.
    """

    name = "linking"
    title = "Do two requests hold the same photograph?"
    knows = "nothing else; where rows are beneath noise, the edge's software, and photographs of its own"
    source = "principal angles between subspaces: Björck and Golub 1973; of what is not mixed, the likelihood ratio"

    def needs(self, scene: Scene) -> Outcome | None:
        return too_few(scene)

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        size = min(GROUPS, scene.half) * scene.edge.group_size
        sees, sees_unprotected = detectors(scene, self.name)
        trials = TRIALS[scene.effort]
        received, bare = torch.empty(2, trials, 2, dtype=torch.float64)
        for trial in range(trials):
            generator = scene.generator(self.name, trial)
            order = torch.randperm(len(scene.victims), generator=generator)
            first, other = order[:size], order[size : 2 * size]
            same = torch.cat((first[:1], other[1:]))
            one, *two = (send(scene.edge, scene.victims, rows, generator) for rows in (first, same, other))
            for place, each in enumerate(two):
                received[trial, place] = sees.meet(one.received, each.received)
                bare[trial, place] = sees_unprotected.meet(one.truth.sources, each.truth.sources)
            progress((trial + 1) / trials)
        right = _ranked_rightly(received)
        result, ceiling = float(right.mean()), float(_ranked_rightly(bare).mean())
        status, reason = judged(CHANCE, result, ceiling, ended=1)
        shared = torch.tensor([True, False]).expand(trials, 2)
        curves = roc("requests that share a photograph from others", shared.flatten(), received.flatten())
        return Outcome(
            status,
            reason,
            measure="share of pairs of requests, of which one shares a photograph with a third, that are told apart",
            floor=CHANCE,
            result=result,
            ceiling=ceiling,
            interval=interval(right.numpy(), scene.seed_of(self.name, "interval")),
            says=f"Asked which of two requests holds a photograph of a third, the cloud is right in {percent(result)} "
            f"of cases ({percent(CHANCE)} by chance).",
            curves=curves,
        )


def _ranked_rightly(scores: Tensor) -> Tensor:
    """Whether the first of each pair [n, 2] is more; a half where they are the same: float64 [n]."""
    return ((scores[:, 0] - scores[:, 1]).sign().double() + 1) / 2
