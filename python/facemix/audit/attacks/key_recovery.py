"""Independent component analysis of one group."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from ..attack import Attack, Progress
from ..control import judged, nothing_mixed
from ..display import compared
from ..grouping import groups_of_images
from ..matching import likeness
from ..outcome import Outcome, Variant, interval
from ..request import Truth, numbered
from ..scene import Scene
from ..separation import best_way, separate

__all__ = ["KeyRecovery"]

BUDGET = {"quick": (1, 4), "full": (1, 8)}  # requests, groups of rows in each


class KeyRecovery(Attack):
    """Un-mixes each group by itself, in several ways, and goes by the one that looks best to somebody who does not know
    the truth. The floor is the rows as they were sent; the ceiling, what the same search finds in rows that were not
    mixed: it ends elsewhere where sources are no independent components.
    """

    name = "key_recovery"
    title = "Can the key be recovered from the rows of a group?"
    knows = "which rows belong to the same group"
    source = "Hyvarinen and Oja 2000 (FastICA); Plumbley 2003 (non-negative); Breaking DataMix (2026)"

    def needs(self, scene: Scene) -> Outcome | None:
        return nothing_mixed(scene)

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        requests, groups = BUDGET[scene.effort]
        groups = groups_of_images(scene, groups)
        floor: list[Tensor] = []
        result, ceiling = _Scores(), _Scores()
        for number in range(requests):
            request = scene.request(number, groups)
            rows, members = _groups(request.truth)
            received, sources = request.received[rows], request.truth.sources[members]
            floor.append(_likeness(sources, received.flatten(2)))
            found = result.add(scene, received, sources, number)
            progress((number + 0.5) / requests)
            ceiling.add(scene, sources, sources, number)
            progress((number + 1) / requests)
            if number == 0:
                pictures = compared(
                    scene, scene.rows(0, groups), request, {"recovered": found.reshape(request.received.shape)}
                )
        low, high, top = float(torch.cat(floor).mean()), result.mean("chosen"), ceiling.mean("chosen")
        status, reason = judged(low, high, top, result.ended())
        return Outcome(
            status,
            reason,
            measure="mean matched |correlation|",
            floor=low,
            result=high,
            ceiling=top,
            interval=interval(
                torch.cat(result.values["chosen"]).numpy(), scene.seed_of(self.name), numbered(result.groups)
            ),
            says=f"Told which rows share a group, the cloud recovers the photographs' features at a correlation of "
            f"{high:.3f} (the rows as sent: {low:.2f}; by {result.favourite()}).",
            variants=tuple(
                Variant(name, result.mean(name), low, ceiling.mean(name)) for name in result.values if name != "chosen"
            ),
            pictures=pictures,
        )


class _Scores:
    """Likeness of every source, by the way that it was found."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        self.groups: list[Tensor] = []  # of each source
        self._chosen: list[str] = []
        self._ended: list[Tensor] = []

    def add(self, scene: Scene, rows: Tensor, sources: Tensor, number: int) -> Tensor:
        """Un-mix `rows` [g, b, c, h, w]; returns what the chosen way found, [g, b, c * h * w]."""
        ways = dict(separate(scene, rows, "key_recovery", number))
        chosen, separation = best_way(rows, ways.items())
        found = {name: way.matrix @ rows.flatten(2) for name, way in ways.items()}
        for name, outputs in found.items():
            self.values[name].append(_likeness(sources, outputs))
        self.groups.append(torch.arange(len(sources)).repeat_interleave(sources.shape[1]))
        self.values["chosen"].append(self.values[chosen][-1])
        self._chosen.append(chosen)
        self._ended.append(separation.ended)
        return found[chosen]

    def mean(self, name: str) -> float:
        return float(torch.cat(self.values[name]).mean())

    def ended(self) -> float:
        return float(torch.cat(self._ended).float().mean())

    def favourite(self) -> str:
        return max(self._chosen, key=self._chosen.count)


def _groups(truth: Truth) -> tuple[Tensor, Tensor]:
    """Received rows and sources of each group: int64 [g, b] and [g, n]."""
    rows = torch.stack([(truth.group == group).nonzero().flatten() for group in truth.group.unique()])
    members = torch.stack([truth.weights[group].abs().sum(0).nonzero().flatten() for group in rows])
    return rows, members


def _likeness(sources: Tensor, found: Tensor) -> Tensor:
    """How like each source [g, n, c, h, w] its match is among what its group gave [g, b, t]: float64 [g * n]."""
    return torch.cat([likeness(s, f) for s, f in zip(sources, found, strict=True)])
