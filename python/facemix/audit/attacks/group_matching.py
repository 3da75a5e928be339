"""Undoing the shuffle."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

import facemix_ops as fo
from facemix.report.spread import percent

from ..attack import Attack, Progress
from ..control import judged, nothing_mixed
from ..curves import roc
from ..grouping import affinities, balanced_clusters, decisive, groups_of_images
from ..outcome import Outcome, Roc, Variant, interval
from ..request import Request, numbered
from ..scene import Scene

__all__ = ["GroupMatching"]

REQUESTS = {"quick": 1, "full": 3}
GROUPS = 8  # of rows, in each
CHANCE = 0.5


class GroupMatching(Attack):
    """Several statistics say how much each two rows belong together, and a balanced clustering makes groups of that.
    The result goes by the statistic whose clusters stand out the most. The ceiling is the same attack on noise that is
    as sparse as features after a ReLU can be, sent in groups of the same size under keys of its own.
    """

    name = "group_matching"
    title = "Can the shuffle be undone?"
    knows = "nothing but the received rows, and how many belong together"
    source = "Breaking DataMix (2026); joint independent component analysis with balanced clustering: ours"

    def needs(self, scene: Scene) -> Outcome | None:
        if (unmixed := nothing_mixed(scene)) is not None:
            return unmixed
        if len(_request(scene, 0).received) == scene.edge.group_size:
            return Outcome("does not apply", "a request of so few photographs has one group only")
        return None

    def run(self, scene: Scene, progress: Progress) -> Outcome:
        requests = REQUESTS[scene.effort]
        result, control = _Scores(), _Scores()
        for number in range(requests):
            request = _request(scene, number)
            result.add(scene, request.received, request.truth.group, number)
            progress((number + 1) / (requests + 1))
        control.add(scene, *_sparse_noise(scene, request.received.shape), "control")
        progress(1)
        high, top = result.mean("chosen"), control.mean("chosen")
        whole = sum(result.whole) / requests
        status, reason = judged(CHANCE, high, top, ended=1)
        return Outcome(
            status,
            reason,
            measure="share of pairs of rows that are ranked rightly (pairwise AUC)",
            floor=CHANCE,
            result=high,
            ceiling=top,
            interval=interval(
                torch.cat(result.values["chosen"]).numpy(), scene.seed_of(self.name), numbered(result.groups)
            ),
            says=f"The cloud puts {percent(whole)} of the groups together whole (pairwise AUC {high:.3f}).",
            variants=(
                Variant("share of groups recovered whole", whole, 0.0, sum(control.whole)),
                *(Variant(name, result.mean(name), CHANCE, control.mean(name)) for name in result.names),
            ),
            curves=result.curves(),
        )


def _request(scene: Scene, number: int) -> Request:
    return scene.request(number, groups_of_images(scene, GROUPS))


class _Scores:
    """How well rows of the same group are told from others, by the statistic."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = defaultdict(list)
        self.whole: list[float] = []
        self.groups: list[Tensor] = []  # of each row: what is about rows of the same group depends on the same pairs
        self._pairs: list[tuple[Tensor, Tensor]] = []

    @property
    def names(self) -> list[str]:
        """Of the statistics."""
        return [name for name in self.values if name != "chosen"]

    def add(self, scene: Scene, rows: Tensor, group: Tensor, seed: int | str) -> None:
        found = affinities(scene, rows, seed)
        size, generator = scene.edge.group_size, scene.generator("clusters", seed)
        clusters = {name: balanced_clusters(affinity, size, generator) for name, affinity in found.items()}
        chosen = max(found, key=lambda name: decisive(found[name], clusters[name]))
        # The truth, from here on.
        same = group[:, None] == group
        self.groups.append(group)
        for name, affinity in found.items():
            self.values[name].append(_ranked_rightly(affinity, same))
        self.values["chosen"].append(self.values[chosen][-1])
        cluster = clusters[chosen]
        self.whole.append(float((same == (cluster[:, None] == cluster)).all(1).double().mean()))
        pair = torch.ones_like(same).triu(1)
        self._pairs.append((same[pair], found[chosen][pair]))

    def mean(self, name: str) -> float:
        return float(torch.cat(self.values[name]).mean())

    def curves(self) -> tuple[Roc, ...]:
        """Of the chosen statistic, over all pairs of rows."""
        same, affinity = (torch.cat(parts).numpy() for parts in zip(*self._pairs, strict=True))
        return roc("two rows of the same group from two of different groups", same, affinity)


def _ranked_rightly(affinity: Tensor, same: Tensor) -> Tensor:
    """For each row, how often one of its group has more affinity to it than one of another group: float64 [b]."""
    shares = []
    for row in range(len(same)):
        inside = same[row].clone()
        inside[row] = False
        above = affinity[row, inside][:, None] - affinity[row, ~same[row]]
        shares.append(((above.sign() + 1) / 2).mean())
    return torch.stack(shares)


def _sparse_noise(scene: Scene, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Rows [b, c, h, w] that mix independent, sparse, non-negative noise, and their groups: int64 [b]."""
    generator, size = scene.generator("control"), scene.edge.group_size
    sources = torch.empty(shape).exponential_(generator=generator)
    sources = sources * (torch.rand(shape, generator=generator) < 0.5)
    key = fo.MixKey.sample(len(sources), size, generator=generator)
    group = torch.empty(len(sources), dtype=torch.int64)
    group[key.order] = torch.arange(len(sources)) // size
    return fo.group_mix(sources, key), group
