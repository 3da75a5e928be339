"""A classifier that is trained on mixed rows to name a person."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..balance import by_victim, class_balanced
from ..control import fails_unprotected
from ..networks import answers, classifier, fit, steps
from ..outcome import Outcome, Variant, interval
from ..readout import people_readout
from ..rehearsal import Rows, attacked, divided, gathered, rehearse, rehearsed, requests_a_pass, suspects
from ..scene import Scene

__all__ = ["Identity"]

TRAINED = 0.8  # of the attacker's photographs; with the others it chooses between its classifiers
PASSES = 4  # of these photographs, for the linear read-out
CHOICE = 8  # requests with the others


class Identity(Attack):
    """The paper's attack: whose is row k, if it belongs to the kth image of its group?

    The attacker labels mixed rows of its own in this way. It trains the paper's network and a linear read-out, and goes
    by the one that does better on requests of its own that it did not train with. Under random keys, which image is
    the kth says nothing about the weights in row k: whoever can name one of S people in it is right once in S times.
    """

    name = "identity"
    title = "Can a classifier learn whose row it is?"
    knows = "the edge's software, and labelled photographs of the people who may be in the rows"
    source = "the paper, section 4: person identity"

    def needs(self, scene: Scene) -> Outcome | None:
        least = 5 * scene.edge.group_size
        if len(scene.gallery) < 2 or len(suspects(scene)) < least:
            return Outcome("skipped", f"It needs {least} or more labelled photographs of two or more of the victims.")
        return None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        people = scene.gallery.labels("identity").sort().values
        victims = _numbers(scene.victims.labels("identity"), people)
        rows = attacked(scene)
        rows = rows.only(victims[rows.owner] >= 0)  # there is no right answer of others
        owner, members, floor = victims[rows.owner], victims[rows.members], 1 / len(people)
        chosen, mixed = self._answers(scene, rows, lambda rows: rows, lambda share: progress(share / 2))
        best, clean = self._answers(scene, rows, Rows.unprotected, lambda share: progress((1 + share) / 2))

        def success(answer: Tensor) -> list[float]:
            return by_victim(class_balanced(answer == owner, owner), rows.owner)

        ceiling, values = success(clean[best]), success(mixed[chosen])
        failed = fails_unprotected(ceiling, floor, scene.seed_of(self.name, "ceiling"))
        if failed:
            return failed
        result, within = fmean(values), mixed[chosen][:, None] == members
        variants = [Variant(name, fmean(success(mixed[name])), floor, fmean(success(clean[name]))) for name in mixed]
        if members.shape[1] > 1:
            inside = (members[:, :, None] == torch.arange(len(people))).any(1)
            variants += [
                Variant("the person with the largest weight in the row", float(within[:, 0].double().mean()), floor),
                Variant(
                    "anybody who is in the row", float(within.any(1).double().mean()), float(inside.double().mean())
                ),
            ]
        return Outcome(
            "done",
            measure="class-balanced success: the person of row k",
            floor=floor,
            result=result,
            ceiling=fmean(ceiling),
            interval=interval(values, scene.seed_of(self.name, "interval")),
            says=f"A classifier trained on received rows names the person whose row it is in {percent(result)} of "
            f"cases ({percent(floor)} by chance, {percent(fmean(ceiling))} without protection).",
            variants=tuple(variants),
        )

    def _answers(
        self, scene: Scene, rows: Rows, view: Callable[[Rows], Rows], progress: Progress
    ) -> tuple[str, dict[str, Tensor]]:
        """The classifier that the attacker goes by, and what each of them says of the victims' rows: int64 [b], numbers
        of people in the gallery, sorted.

        Args:
            view: of rows: as the edge sends them, or unprotected.
        """
        train, held = divided(suspects(scene), TRAINED, scene.seed_of(self.name, "split"), scene.edge.group_size)
        people = scene.gallery.labels("identity").sort().values
        label, held_label = (_numbers(faces.labels("identity"), people) for faces in (train, held))
        mine = view(rehearsed(scene.edge, train, PASSES, scene.generator(self.name, "read")))
        read = people_readout(mine, F.one_hot(label, len(people)), scene.device)
        network = classifier(mine.received.shape[1:], len(people), scene.seed_of(self.name, "network")).to(scene.device)
        count = steps(scene.effort, requests_a_pass(scene.edge, train))
        requests = map(view, rehearse(scene.edge, train, scene.generator(self.name, "train")))
        batches = ((own.received, label[own.owner]) for own in islice(requests, count))
        fit(network, batches, count, F.cross_entropy, progress)

        said: dict[str, Callable[[Tensor], Tensor]] = {
            "the paper's network": lambda received: answers(network, received).argmax(1),
            "linear read-out": lambda received: read(received).abs().argmax(1),
        }
        own = view(gathered(islice(rehearse(scene.edge, held, scene.generator(self.name, "held")), CHOICE)))
        truth = held_label[own.owner]
        scores = {name: float(class_balanced(say(own.received) == truth, truth).mean()) for name, say in said.items()}
        seen = view(rows).received
        return max(scores, key=scores.__getitem__), {name: say(seen) for name, say in said.items()}


def _numbers(identity: Tensor, people: Tensor) -> Tensor:
    """The places in `people` [P], distinct, of each of `identity` [n]; -1 of who is not there: int64 [n]."""
    found = identity[:, None] == people
    return torch.where(found.any(1), found.int().argmax(1), -1)
