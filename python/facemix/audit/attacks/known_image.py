"""Is this photograph in the request?"""

from __future__ import annotations

from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from facemix.pictures import COLUMNS, Line
from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..control import judged, too_few
from ..curves import roc
from ..detector import Detector, detectors
from ..display import compared
from ..matching import likeness
from ..noiseless import Noiseless
from ..outcome import Outcome, Variant, interval
from ..request import Request, Truth
from ..scene import Scene, send
from ..separation import unmixed
from ..span import leftover

__all__ = ["KnownImage"]

REQUESTS = {"quick": 8, "full": 64}
CHANCE = 0.5


class KnownImage(Attack):
    """The attacker has a photograph, and asks whether it was sent. Its features lie in what the rows of the request
    span, or they do not: neither the key nor the shuffle changes the span. Beneath noise nothing lies in there quite,
    and it is asked how far what is special about the photograph does, by the attacker's own photographs: see
    `facemix.audit.detector`. Decoys of a public set are found in the same way. A further figure is of somebody who has
    all photographs of a request but one: an orthogonal mix keeps the products of the columns of its sources, so that
    those of the known ones can be taken off. Where a photograph has several sources, what is left is un-mixed.
    """

    name = "known_image"
    title = "Is a photograph that the attacker has in a request?"
    knows = "the edge's software, the photograph, and others of its own; not which rows belong together"
    source = "matched subspaces: Scharf and Friedlander 1994; of what is not mixed, the likelihood ratio"

    def needs(self, scene: Scene) -> Outcome | None:
        return too_few(scene)

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        requests = REQUESTS[scene.effort]
        images = torch.from_numpy(np.asarray(scene.victims.images))
        clean = scene.edge.clean(images)
        known = clean
        if scene.edge.group_size == 1:  # whoever has the edge's software has what it makes of the photograph
            edge = Noiseless(scene.edge)
            known = send(edge, scene.victims, torch.arange(len(images)), scene.generator(self.name)).received
        sees, sees_unprotected = detectors(scene, self.name)
        scores, result, ceiling, last = [], [], [], []
        for number in range(requests):
            sent = torch.zeros(len(images), dtype=torch.bool)
            sent[scene.rows(number, scene.half)] = True
            request = scene.request(number, scene.half)
            scores.append((sent, _nearness(sees, request.received, known, len(images))))
            result.append(_ranked(*scores[-1]))
            ceiling.append(_ranked(sent, _nearness(sees_unprotected, request.truth.sources, clean, len(images))))
            if scene.edge.group_size > 1:
                last.append(_last(scene, request, number))
            progress((number + 1) / (requests + 1))
        high, top = map(fmean, (result, ceiling))
        status, reason = judged(CHANCE, high, top, ended=1)
        curves = roc("a photograph that was sent from one that was not", *map(torch.cat, zip(*scores, strict=True)))
        return Outcome(
            status,
            reason,
            measure="share of pairs of photographs, one sent and one not, that are ranked rightly (AUC)",
            floor=CHANCE,
            result=high,
            ceiling=top,
            interval=interval(result, scene.seed_of(self.name)),
            says=f"Asked which of two photographs that it has was sent, the cloud is right in {percent(high)} of cases "
            f"({percent(CHANCE)} by chance).",
            variants=_variants(last),
            curves=curves,
            pictures=_pictures(scene, last),
        )


def _nearness(sees: Detector, rows: Tensor, known: Tensor, count: int) -> Tensor:
    """How sure each of `count` photographs is in `rows`, by its sources `known`: float64 [count]."""
    return sees.holds(rows, known).view(count, -1).mean(1)


def _ranked(sent: Tensor, scores: Tensor) -> float:
    """How often one that was sent has a higher score than one that was not."""
    return float(((scores[sent][:, None] - scores[~sent]).sign() + 1).mean() / 2)


def _last(scene: Scene, request: Request, number: int) -> tuple[Tensor, Tensor]:
    """The sources of a request's first image, and what is left of its rows without those of all others, un-mixed."""
    unknown = request.truth.image == 0
    sources = request.truth.sources
    left = leftover(request.received, sources[~unknown])
    return sources[unknown], unmixed(scene, left, "known_image", number)


def _variants(last: list[tuple[Tensor, Tensor]]) -> tuple[Variant, ...]:
    if not last:
        return ()
    alike = [float(likeness(sources, found).mean()) for sources, found in last]
    name = "if all other photographs of a request are known: correlation with the features of the one that is not"
    return (Variant(name, fmean(alike)),)


def _pictures(scene: Scene, last: list[tuple[Tensor, Tensor]]) -> tuple[Line, ...]:
    """Of the first requests: the photograph that is not known, and what was found of it."""
    if not last:
        return ()
    sources, found = (torch.cat(parts) for parts in zip(*last[:COLUMNS], strict=True))
    numbers = range(min(len(last), COLUMNS))
    image = torch.tensor(numbers).repeat_interleave(len(sources) // len(numbers))
    rows = torch.stack([scene.rows(number, scene.half)[0] for number in numbers])
    received = torch.cat([scene.request(number, scene.half).received for number in numbers])
    empty = torch.empty(0)
    return compared(scene, rows, Request(received, Truth(sources, image, empty, empty)), {"all others known": found})
