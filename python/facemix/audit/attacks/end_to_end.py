"""From a shuffled pool to faces."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..control import judged, nothing_mixed
from ..display import compared
from ..gallery import nearest_people
from ..grouping import groups_of_images
from ..matching import amari, likeness, matched
from ..outcome import Outcome, Variant, interval
from ..recovery import recover
from ..request import Request, numbered
from ..same_person import same_person
from ..scene import Scene

__all__ = ["EndToEnd"]

BUDGET = {"quick": (1, 4), "full": (1, 8)}  # requests, groups of rows in each
FACE = 0.9  # |correlation| from which on a face counts as recovered

AMARI = "1 - Amari index: how much of the key"
FACES = f"share of the photographs at a |correlation| above {FACE}"
PEOPLE = "share of the people named rightly (who has the first part, and a photograph of everybody)"
SAME = "the same person told from another, nobody being known: share of cases (who has the cloud's part)"


class EndToEnd(Attack):
    """Groups the rows of a request, un-mixes each group, and matches what comes out with the photographs that went in.
    The ceiling is the same attack on rows that were neither mixed nor shuffled.
    """

    name = "end_to_end"
    title = "Shuffled rows in: do the faces come out?"
    knows = "nothing but the received rows, and how many belong together"
    source = "`group_matching`, then `key_recovery`; Amari, Cichocki, Yang 1996 (index)"

    def needs(self, scene: Scene) -> Outcome | None:
        return nothing_mixed(scene)

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        requests, groups = BUDGET[scene.effort]
        groups = groups_of_images(scene, groups)
        floor, result, ceiling = _Scores(scene), _Scores(scene), _Scores(scene)
        ended = []
        for number in range(requests):
            rows, request = scene.rows(number, groups), scene.request(number, groups)
            truth = request.truth
            floor.add(rows, request, request.received, truth.weights)
            found = recover(scene, request.received, self.name, number)
            ended.append(found.ended)
            result.add(rows, request, found.rows, found.matrix @ truth.weights)
            progress((number + 0.5) / requests)
            control = recover(scene, truth.sources, self.name, number)
            ceiling.add(rows, request, control.rows, control.matrix)
            progress((number + 1) / requests)
            if number == 0:
                pictures = compared(scene, rows, request, {"recovered": found.rows})
        low, high, top = floor.mean("likeness"), result.mean("likeness"), ceiling.mean("likeness")
        status, reason = judged(low, high, top, sum(ended) / requests)
        return Outcome(
            status,
            reason,
            measure="mean matched |correlation|",
            floor=low,
            result=high,
            ceiling=top,
            interval=interval(
                torch.cat(result.values["likeness"]).numpy(), scene.seed_of(self.name), numbered(result.groups)
            ),
            says=f"From a request's rows alone the cloud recovers {percent(result.mean(FACES))} of the photographs: "
            f"their features at a correlation above {FACE} (on average {high:.3f}).",
            variants=tuple(
                Variant(name, result.mean(name), floor.mean(name), ceiling.mean(name))
                for name in result.values
                if name != "likeness"
            ),
            pictures=pictures,
        )


class _Scores:
    def __init__(self, scene: Scene) -> None:
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        self.groups: list[Tensor] = []  # of each source
        self._scene = scene

    def add(self, rows: Tensor, request: Request, found: Tensor, product: Tensor) -> None:
        """Of the photographs `rows`, of what was `found`, and of un-mixing times mixing matrix."""
        sources, image = request.truth.sources, request.truth.image
        alike = likeness(sources, found)
        self.values["likeness"].append(alike)
        self.groups.append(request.truth.group_of_source)
        self.values[FACES].append((alike > FACE).double())
        self.values[AMARI].append(torch.tensor([1 - amari(product)]))
        if self._scene.victims.identity is None:
            return
        # Not matched by likeness: the one row of 64 that is most like a source is named rightly even in noise.
        which = matched(product.abs().T / product.norm(dim=1).clamp(min=1e-12))[0]
        people = self._scene.victims.identity[rows[image]]
        if len(self._scene.gallery):
            named = nearest_people(self._scene, found)
            self.values[PEOPLE].append((named[which] == people).double())
        whole = len(rows) == len(image)  # parts of photographs are not compared
        if self._scene.cloud is not None and whole and 1 < len(people.unique()) < len(people):
            self.values[SAME].append(same_person(self._scene.cloud, found[which], people))

    def mean(self, name: str) -> float:
        return float(torch.cat(self.values[name]).mean())
