"""What the cloud learns from what it computes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..attack import Attack, Progress
from ..edge import Edge
from ..failure import PartFailed, failed
from ..outcome import Outcome, Variant
from ..request import Request, Secrets
from ..scene import Cloud, Scene
from .attributes import Attributes
from .membership import Membership

__all__ = ["OutputSide"]


class OutputSide(Attack):
    """The attacks on people and on attributes, on the cloud's own outputs in place of the rows.

    Outputs are what the network was trained to tell faces by, so they may say more than the rows, and they are small.
    The attacker makes requests of its own and lets the cloud compute their outputs. Of the two attacks, the one on
    people speaks, unless the one on attributes got further, by a figure whose interval says that it is no chance: the
    better of two answers to noise must not stand for the attack. One that fails gives no answer, and takes none from
    the other.
    """

    name = "output_side"
    title = "What do the cloud's own outputs give away?"
    knows = "the cloud's part of the network, and what the attacks membership and attributes know"
    source = "the paper, section 3: output privacy"

    def needs(self, scene: Scene) -> Outcome | None:
        if scene.cloud is None:
            return Outcome("skipped", "It needs the cloud's part of the network.")
        unmet = [attack.needs(scene) for attack in PARTS]
        return unmet[0] if all(unmet) else None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        assert scene.cloud is not None  # see `needs`
        outputs = replace(scene, edge=_Outputs(scene.edge, scene.cloud))
        parts = [attack for attack in PARTS if attack.needs(scene) is None]
        found, errors = [], {}
        for done, attack in enumerate(parts):
            try:
                found.append(attack.run(outputs, _part_of(progress, done, len(parts))))
            except Exception as error:
                errors[attack.name] = error
                found.append(failed(type(attack), error))
        if len(errors) == len(parts):
            raise next(iter(errors.values()))
        first, *others = sorted(found, key=lambda outcome: _clear(outcome, len(found)), reverse=True)
        unanswered = [outcome for outcome in found if outcome.status != "done"]
        if unanswered and not _clear(first, len(found)):
            # The other part got nothing, and this one may have.
            return _counted(unanswered[0], errors)
        more = [
            Variant(outcome.measure, outcome.result, outcome.floor, outcome.ceiling)
            for outcome in others
            if outcome.result is not None
        ]
        broken = "".join(f" Its part {name} failed, and may have got more." for name in errors)
        outcome = replace(
            first,
            measure=f"from the outputs: {first.measure}",
            says=f"From what it computes itself: {first.says[0].lower()}{first.says[1:]}{broken}",
            variants=(*more, *(variant for outcome in found for variant in outcome.variants)),
            pictures=(),  # outputs do not look like anything
        )
        return _counted(outcome, errors)


def _clear(outcome: Outcome, among: int) -> float:
    """What it recovered, where that is beyond chance for one of so many parts; else 0."""
    return (outcome.recovered or 0.0) if outcome.beyond_chance(among) else 0.0


def _counted(outcome: Outcome, errors: Mapping[str, Exception]) -> Outcome:
    """``outcome``, where no part of it failed."""
    if errors:
        raise PartFailed(outcome)
    return outcome


PARTS: tuple[Attack, ...] = (Membership(), Attributes())


def _part_of(progress: Progress, done: int, parts: int) -> Progress:
    """The progress of one of `parts`, where `done` were before."""
    return lambda share: progress((done + share) / parts)


class _Outputs:
    """An edge from whose requests the attacker sees the outputs alone, [b, d, 1, 1]."""

    def __init__(self, edge: Edge, cloud: Cloud) -> None:
        self.group_size, self._edge, self._cloud = edge.group_size, edge, cloud

    def clean(self, images: Tensor) -> Tensor:
        return self._computed(self._edge.clean(images))

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        request = self._edge.send(images, generator, reuse)
        truth = replace(request.truth, sources=self._computed(request.truth.sources))
        return Request(self._computed(request.received), truth)

    def _computed(self, rows: Tensor) -> Tensor:
        return self._cloud(rows).flatten(1)[:, :, None, None]
