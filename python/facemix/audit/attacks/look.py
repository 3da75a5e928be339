"""Looking at the received rows as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attack import Attack, Progress
from ..display import compared
from ..matching import correlation, likeness, matched
from ..outcome import Outcome, interval
from ..request import numbered
from ..scene import Scene

__all__ = ["Look"]

REQUESTS = {"quick": 2, "full": 4}


class Look(Attack):
    """How like its source is the received row that is most like it? No computation at all: what a log would show."""

    name = "look"
    title = "What do the received rows show as they are?"
    knows = "nothing but the received rows"
    source = "FaceMix, section 4: pictures of mixed features"

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        requests = REQUESTS[scene.effort]
        values: dict[str, list[Tensor]] = {"floor": [], "result": [], "ceiling": []}
        groups = []
        for number in range(requests):
            request = scene.request(number)
            sources = request.truth.sources
            alike = correlation(sources, sources).abs()
            values["floor"].append(matched(alike * _strangers(scene, number, request.truth.image))[1])
            values["result"].append(likeness(sources, request.received))
            values["ceiling"].append(matched(alike)[1])
            groups.append(request.truth.group_of_source)
            progress((number + 1) / requests)
        floor, result, ceiling = (float(torch.cat(value).mean()) for value in values.values())
        return Outcome(
            "done",
            measure="mean matched |correlation|",
            floor=floor,
            result=result,
            ceiling=ceiling,
            interval=interval(torch.cat(values["result"]).numpy(), scene.seed_of(self.name), numbered(groups)),
            says=f"A received row is as like its photograph's features as {result:.2f}; a stranger's are {floor:.2f}.",
            pictures=compared(scene, scene.rows(0), scene.request(0), {}),
        )


def _strangers(scene: Scene, number: int, image: Tensor) -> Tensor:
    """1 where two sources of a request show different people; where people are not known, different photographs."""
    rows = scene.rows(number)[image]
    who = rows if scene.victims.identity is None else scene.victims.identity[rows]
    return (who[:, None] != who).double()
