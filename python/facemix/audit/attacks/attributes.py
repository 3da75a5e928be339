"""A classifier that is trained on mixed rows to tell what is on a photograph: glasses, a beard."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from facemix.data import UNKNOWN, Labelled
from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..balance import by_victim, class_balanced
from ..control import fails_unprotected
from ..networks import answers, classifier, fit, steps
from ..outcome import Outcome, Variant, interval
from ..readout import Readout, people_readout
from ..rehearsal import Rows, attacked, divided, gathered, rehearse, rehearsed, requests_a_pass, suspects
from ..scene import Scene

__all__ = ["Attributes"]

MOST = 20_000  # photographs of the attacker: more do not fit every memory
TRAINED = 0.8  # of them; with the others it chooses between its classifiers
CHOICE = 8  # requests with those
PASSES = 4  # of the photographs that the read-out learns people from
CHANCE = 0.5

#: Received rows -> for each attribute, whether the row's photograph has it: bool [b, A].
Classifier = Callable[[Tensor], Tensor]


class Attributes(Attack):
    """The paper's attack: what is on the photograph of row k, if row k belongs to the kth image of its group?

    The attacker trains the paper's network and a linear read-out on mixed rows of its own. Where it knows people, it
    also reads who is in a row, and by how much, and answers as most of the row would. It goes by what does best on
    requests of its own that it did not train with.
    """

    name = "attributes"
    title = "Can a classifier learn what is on a row's photograph?"
    knows = "the edge's software, and photographs with attributes; of the same people, where people are known"
    source = "the paper, section 4: face attributes"

    def needs(self, scene: Scene) -> Outcome | None:
        if not _told(scene):
            return Outcome(
                "skipped", "No attribute is known that some of the attacker's and some victims have or lack."
            )
        if len(scene.attacker) < 5 * scene.edge.group_size:
            return Outcome("skipped", f"It needs {5 * scene.edge.group_size} or more photographs to train on.")
        return None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        rows = attacked(scene)
        truth = _labels(scene.victims, _told(scene))[rows.owner]
        chosen, mixed = self._answers(scene, rows, lambda rows: rows, lambda share: progress(share / 2))
        best, clean = self._answers(scene, rows, Rows.unprotected, lambda share: progress((1 + share) / 2))

        ceiling = by_victim(_success(clean[best], truth), rows.owner)
        failed = fails_unprotected(ceiling, CHANCE, scene.seed_of(self.name, "ceiling"))
        if failed:
            return failed
        values = by_victim(_success(mixed[chosen], truth), rows.owner)
        result, top = fmean(values), fmean(ceiling)
        variants = [
            Variant(
                name, float(_success(mixed[name], truth).mean()), CHANCE, float(_success(clean[name], truth).mean())
            )
            for name in mixed
        ]
        for column, attribute in enumerate(_told(scene)):
            one = slice(column, column + 1)
            figures = (float(_success(said[:, one], truth[:, one]).mean()) for said in (mixed[chosen], clean[best]))
            variants.append(Variant(attribute, next(figures), CHANCE, next(figures)))
        return Outcome(
            "done",
            measure="class-balanced success: attributes of row k, averaged",
            floor=CHANCE,
            result=result,
            ceiling=top,
            interval=interval(values, scene.seed_of(self.name, "interval")),
            says=f"A classifier trained on received rows tells the attributes of the photograph whose row it is in "
            f"{percent(result)} of cases ({percent(CHANCE)} by chance, {percent(top)} without protection).",
            variants=tuple(variants),
        )

    def _answers(
        self, scene: Scene, rows: Rows, view: Callable[[Rows], Rows], progress: Progress
    ) -> tuple[str, dict[str, Tensor]]:
        """The classifier that the attacker goes by, and what each of them says of the victims' rows: bool [b, A].

        Args:
            view: of rows: as the edge sends them, or unprotected.
        """
        order = torch.randperm(len(scene.attacker), generator=scene.generator(self.name, "photographs"))
        own = scene.attacker.take(order[:MOST])
        train, held = divided(own, TRAINED, scene.seed_of(self.name, "split"), scene.edge.group_size)
        said = {
            "the paper's network": self._network(scene, train, view, progress),
            "linear read-out": self._linear(scene, train, view),
        }
        if len(scene.gallery) > 1 and _varied(suspects(scene), _told(scene)):
            said["by who is in the row"] = self._by_people(scene, view)
        tried = view(gathered(islice(rehearse(scene.edge, held, scene.generator(self.name, "held")), CHOICE)))
        truth = _labels(held, _told(scene))[tried.owner]
        scores = {name: float(_success(say(tried.received), truth).mean()) for name, say in said.items()}
        seen = view(rows).received
        return max(scores, key=scores.__getitem__), {name: say(seen) for name, say in said.items()}

    def _network(self, scene: Scene, train: Labelled, view: Callable[[Rows], Rows], progress: Progress) -> Classifier:
        labels = _labels(train, _told(scene))
        known = labels != UNKNOWN
        share = ((labels == 1).sum(0) / known.sum(0)).to(scene.device)

        def loss(scores: Tensor, target: Tensor) -> Tensor:
            # Both answers weigh as much, whatever their share, as in what is measured; unknown ones nothing, not even
            # where nobody lacks the attribute, or has it, and 1 / share is infinite.
            weight = torch.where(target == 1, 0.5 / share, 0.5 / (1 - share)).masked_fill(target == UNKNOWN, 0)
            return F.binary_cross_entropy_with_logits(scores, (target == 1).float(), weight)

        requests = map(view, rehearse(scene.edge, train, scene.generator(self.name, "train")))
        count = steps(scene.effort, requests_a_pass(scene.edge, train))
        first = next(requests)
        network = classifier(first.received.shape[1:], labels.shape[1], scene.seed_of(self.name, "network"))
        batches = ((own.received, labels[own.owner]) for own in islice(requests, count))
        fit(network.to(scene.device), batches, count, loss, progress)
        return lambda received: answers(network, received) > 0

    def _linear(self, scene: Scene, train: Labelled, view: Callable[[Rows], Rows]) -> Classifier:
        mine = view(rehearsed(scene.edge, train, PASSES, scene.generator(self.name, "read")))
        labels = _labels(train, _told(scene)).double()
        sign = torch.where(labels == UNKNOWN, 0.0, 2 * labels - 1)
        targets = torch.einsum("bs,bsa->ba", mine.weights, sign[mine.members])
        read = Readout(mine.received.to(scene.device), targets, mine.noise.to(scene.device))
        return lambda received: read(received) > 0

    def _by_people(self, scene: Scene, view: Callable[[Rows], Rows]) -> Classifier:
        from sklearn.linear_model import LogisticRegression

        faces, told = suspects(scene), _told(scene)
        person = faces.labels("identity")[:, None] == scene.gallery.labels("identity")
        mine = view(rehearsed(scene.edge, faces, PASSES, scene.generator(self.name, "people")))
        read = people_readout(mine, person, scene.device)
        labels = _labels(faces, told)
        has = torch.stack([_share(labels[member]) for member in person.T])  # [P, A]

        def scores(received: Tensor) -> Tensor:
            energy = read(received).double().square()
            return F.normalize(energy, p=1, dim=1) @ has

        requests = rehearse(scene.edge, faces, scene.generator(self.name, "people, as sent"))
        sent = map(view, islice(requests, PASSES * requests_a_pass(scene.edge, faces)))
        fitted, truth = map(
            torch.cat, zip(*((scores(each.received), labels[each.owner]) for each in sent), strict=True)
        )
        deciders = []
        for column in range(len(told)):
            known = truth[:, column] != UNKNOWN
            decider = LogisticRegression(class_weight="balanced", C=1e4)
            deciders.append(decider.fit(fitted[known, column, None].numpy(), truth[known, column].numpy()))

        def say(received: Tensor) -> Tensor:
            found = scores(received)
            answered = [decider.predict(found[:, column, None].numpy()) for column, decider in enumerate(deciders)]
            return torch.stack([torch.from_numpy(answer) for answer in answered], 1) == 1

        return say


def _told(scene: Scene) -> list[str]:
    """The attributes that some of the attacker's photographs and some victims have, and some lack."""
    both = set(scene.victims.attributes) & set(scene.attacker.attributes)
    return sorted(name for name in both if _varied(scene.victims, [name]) and _varied(scene.attacker, [name]))


def _varied(faces: Labelled, told: list[str]) -> bool:
    """Whether some of the photographs have each attribute, and some lack it."""
    return all({0, 1} <= set(faces.attributes[name].tolist()) for name in told)


def _labels(faces: Labelled, told: list[str]) -> Tensor:
    """int8 [N, A]."""
    return torch.stack([faces.attributes[name] for name in told], 1)


def _share(labels: Tensor) -> Tensor:
    """How often each attribute is there, where it is known; a half where it is not: float64 [A], of int8 [n, A]."""
    known = (labels != UNKNOWN).sum(0)
    return torch.where(known > 0, (labels == 1).sum(0).double() / known.clamp(min=1), 0.5)


def _success(answer: Tensor, truth: Tensor) -> Tensor:
    """Values float64 [b] whose mean is the class-balanced success, averaged over attributes: of bool, int8 [b, A]."""
    values = torch.empty(truth.shape, dtype=torch.float64)
    for column in range(truth.shape[1]):
        known = truth[:, column] != UNKNOWN
        hits = class_balanced(answer[known, column] == (truth[known, column] == 1), truth[known, column])
        values[:, column] = hits.mean()
        values[known, column] += (hits - hits.mean()) * len(truth) / len(hits)
    return values.mean(1)
