"""Who of a gallery is in a mixed row, without any separation."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from facemix.data import Labelled
from facemix.pictures import COLUMNS, Line
from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..balance import by_victim
from ..control import fails_unprotected
from ..curves import roc
from ..display import photographs, rows_as_sent
from ..outcome import Outcome, Variant, interval
from ..readout import people_readout
from ..rehearsal import Rows, attacked, rehearsed, suspects
from ..scene import Scene

__all__ = ["Membership"]


class Membership(Attack):
    """A linear read-out of "how much of each person", learned from requests that the attacker makes itself.

    Of a mixture it reads the mixture: the coefficient with which each person is in the row, and near 0 for all others.
    So whoever has the largest |value| is in the row, whatever the key. Where the edge puts rows beneath noise, the
    attacker leaves it out of its own, and has the regression reckon with it. Rows in which nobody of the gallery is
    have no right answer, and do not count.
    """

    name = "membership"
    title = "Who of a gallery is in a received row?"
    knows = (
        "the edge's software, and labelled photographs of the people who may be in it; not which rows belong together"
    )
    source = "equation 4 of the paper is linear, and so is ridge regression (Hoerl and Kennard 1970)"

    def needs(self, scene: Scene) -> Outcome | None:
        least = max(2, scene.edge.group_size)
        if len(scene.gallery) < least:
            return Outcome("skipped", f"It needs a gallery of at least {least} people, got {len(scene.gallery)}.")
        return None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        people = scene.gallery.labels("identity")
        owners = scene.victims.labels("identity")
        rows = attacked(scene)
        rows = rows.only(torch.isin(owners[rows.members], people).any(1))
        progress(0.2)
        passes = 2 if scene.effort == "quick" else 4
        scores, clean = self._scores(scene, suspects(scene), passes, rows)
        progress(0.7)
        alone, _ = self._scores(scene, scene.gallery, passes, rows)
        progress(0.9)

        inside = (owners[rows.members][:, :, None] == people).any(1)  # [b, P]
        owner = owners[rows.owner][:, None] == people
        floor = float(inside.double().mean())
        known = owner.any(1)
        ceiling = _named(clean[known], owner[known])
        failed = fails_unprotected(by_victim(ceiling, rows.owner[known]), floor, scene.seed_of(self.name, "ceiling"))
        if failed:
            return failed
        hits = _named(scores, inside)
        by_group = [float(hits[rows.group == group].mean()) for group in rows.group.unique()]
        result = float(hits.mean())
        variants = [
            Variant("with one photograph of each person, no others", float(_named(alone, inside).mean()), floor)
        ]
        curves = roc("from one row: who is in it", inside.flatten(), scores.flatten())
        if rows.members.shape[1] > 1:
            energy, of_group = _together(rows, scores, inside)
            variants += [
                Variant("as many people named as are in a row: share that are", _found(scores, inside), floor),
                Variant("the same of a group, if one knows which rows it has", _found(energy, of_group), floor),
            ]
            curves += roc("from a group's rows: who is in it", of_group.flatten(), energy.flatten())
        return Outcome(
            "done",
            measure="share of rows of which the person named first is in them",
            floor=floor,
            result=result,
            ceiling=float(ceiling.mean()),
            interval=interval(by_group, scene.seed_of(self.name, "interval")),
            says=f"Asked who of {len(people)} people is in a received row, the cloud names one who is in "
            f"{percent(result)} of cases ({percent(floor)} by chance).",
            variants=tuple(variants),
            curves=curves,
            pictures=_pictures(scene, rows, scores, inside),
        )  # fmt: skip

    def _scores(self, scene: Scene, known: Labelled, passes: int, rows: Rows) -> tuple[Tensor, Tensor]:
        """How much of each person of the gallery is in received rows, and in the same rows without protection:
        float32 [b, P] each."""
        mine = rehearsed(scene.edge, known, passes, scene.generator(self.name, len(known)))
        person = known.labels("identity")[:, None] == scene.gallery.labels("identity")
        read = people_readout(mine, person, scene.device)
        unprotected = people_readout(mine.unprotected(), person, scene.device)
        return read(rows.received).abs(), unprotected(rows.clean).abs()


def _named(scores: Tensor, true: Tensor) -> Tensor:
    """Whether the person with the highest score is one of the true ones: float64 [b]."""
    return true.gather(1, scores.argmax(1, keepdim=True))[:, 0].double()


def _found(scores: Tensor, true: Tensor) -> float:
    """Of as many persons as are true, those with the highest scores: the share of them that are, averaged."""
    rank = scores.argsort(1, descending=True).argsort(1)
    count = true.sum(1)
    return float(((rank < count[:, None]) & true).sum(1).div(count.clamp(min=1)).mean())


def _together(rows: Rows, scores: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and truth of a group, all its rows taken together: [G, P] each."""
    first = torch.stack([(rows.group == group).nonzero()[0, 0] for group in rows.group.unique()])
    energy = torch.zeros(len(first), scores.shape[1]).index_add(0, rows.group, scores.square())
    return energy, inside[first]


def _pictures(scene: Scene, rows: Rows, scores: Tensor, inside: Tensor) -> tuple[Line, ...]:
    """Of the first rows: the photograph of the person who is named, or else the one with the largest weight; what was
    sent; the photograph of the gallery that the attack names."""
    named = scores[:COLUMNS].argmax(1)
    members = rows.members[:COLUMNS]
    theirs = scene.victims.labels("identity")[members] == scene.gallery.labels("identity")[named][:, None]
    shown = members.gather(1, theirs.int().argmax(1, keepdim=True))[:, 0]
    answer = photographs("named, from the gallery", scene.gallery, named)
    return (
        photographs("in the row, among others", scene.victims, shown),
        rows_as_sent("sent", rows.received[:COLUMNS]),
        replace(answer, right=theirs.any(1).tolist()),
    )
