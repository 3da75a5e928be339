"""What is in each received row: of the attacker's own requests, to train on, and of the victims', to score by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from facemix.data import Labelled
from facemix.data.labelled import split_rows

from .edge import Edge
from .noiseless import Noiseless, noise
from .request import Request
from .scene import GROUPS, Scene, joined, send

__all__ = [
    "Rows", "attacked", "described", "divided", "gathered", "rehearse", "rehearsed", "requests_a_pass", "suspects",
]  # fmt: skip

REQUESTS = 8  # of the victims
BATCH = 64  # rows of a request of the attacker, about: networks train on one at a time
NOISE = 512  # rows of it, to learn from how it is
VALUES = 2**28  # float32 at most that are kept of the attacker's rows: 1 GB


class Rows(NamedTuple):
    """Received rows, and whose they are.

    Attributes:
        received: float32 [b, c, h, w].
        clean: float32 [b, c, h, w], for each the source of `owner`, as an edge without any protection sends it.
        members: int64 [b, S], which photographs each mixes, by falling |weight|.
        weights: float64 [b, S], with which weight.
        owner: int64 [b], the photograph of row k, as the paper counts: the kth row of a group belongs to its kth image.
        group: int64 [b], rows with the same number mix the same sources.
        noise: float32 [n, c, h, w], some of what hides rows as the edge sends them, where `received` is without it.
    """

    received: Tensor
    clean: Tensor
    members: Tensor
    weights: Tensor
    owner: Tensor
    group: Tensor
    noise: Tensor

    def unprotected(self) -> Rows:
        """The same, if the edge sent the sources themselves."""
        one = torch.ones(len(self.owner), 1, dtype=torch.float64)
        return self._replace(
            received=self.clean, members=self.owner[:, None], weights=one, group=torch.arange(len(self.owner)),
            noise=self.noise[:0],
        )  # fmt: skip

    def only(self, rows: Tensor) -> Rows:
        """Those of `rows`, bool [b], with groups numbered anew."""
        kept = {name: values[rows] for name, values in self._asdict().items() if name != "noise"}
        kept["group"] = kept["group"].unique(return_inverse=True)[1]
        return self._replace(**kept)


def described(request: Request, photographs: Tensor, size: int) -> Rows:
    """The rows of one request.

    Args:
        request: of whole groups.
        photographs: int64 [N], the numbers of its images.
        size: S.
    """
    truth = request.truth
    strongest = truth.weights.abs().topk(size, 1).indices  # of its group's sources: all others have weight 0
    source = torch.empty(len(truth.group), dtype=torch.int64)
    for number in truth.group.unique():
        rows = (truth.group == number).nonzero().flatten()
        source[rows] = strongest[rows[0]].sort().values
    return Rows(
        request.received, truth.sources[source], photographs[truth.image[strongest]],
        truth.weights.gather(1, strongest), photographs[truth.image[source]], truth.group,
        request.received[:0],
    )  # fmt: skip


def attacked(scene: Scene) -> Rows:
    """The rows of the first requests of the victims: as many of them as intervals need."""
    size = scene.edge.group_size
    return gathered(described(scene.request(number), scene.rows(number), size) for number in range(REQUESTS))


def rehearse(edge: Edge, faces: Labelled, generator: torch.Generator) -> Iterator[Rows]:
    """Requests that the attacker makes of photographs of its own, as the edge makes them: all photographs again and
    again, each time in new groups with new keys. What does not fill a group is left out that time.

    Args:
        faces: at least a group.
        generator: of all secrets, on the CPU.

    Yields:
        A request's rows, without end.
    """
    size = edge.group_size
    if len(faces) < size:
        raise ValueError(f"audit: the attacker must have at least a group of photographs, {size}, got {len(faces)}")
    while True:
        order = torch.randperm(len(faces), generator=generator)[: len(faces) // size * size]
        for groups in order.view(-1, size).tensor_split(requests_a_pass(edge, faces)):
            rows = groups.flatten()
            yield described(send(edge, faces, rows, generator), rows, size)


def rehearsed(edge: Edge, faces: Labelled, passes: int, generator: torch.Generator) -> Rows:
    """The rows of so many passes of `rehearse` over all photographs, beneath no noise, and some of that; fewer where
    they would not fit into memory.
    """
    requests = rehearse(Noiseless(edge), faces, generator)
    first = next(requests)
    count = min(passes * requests_a_pass(edge, faces), VALUES // first.received.numel())
    rows = gathered((first, *islice(requests, count - 1)))
    return rows._replace(noise=_noise(edge, faces, generator))


def _noise(edge: Edge, faces: Labelled, generator: torch.Generator) -> Tensor:
    """NOISE rows of it, or none where `edge` adds none."""
    order = torch.randperm(len(faces), generator=generator)
    rows = order[: min(len(faces), NOISE) // edge.group_size * edge.group_size]
    found = noise(edge, faces, rows, generator)
    if not found.any():
        return found[:0]
    more = [noise(edge, faces, rows, generator) for _ in range(NOISE // len(found))]
    return torch.cat((found, *more))[:NOISE]


def divided(faces: Labelled, share: float, seed: int, least: int) -> tuple[Labelled, Labelled]:
    """To train with, and at least `least` to choose with: `share` of the photographs of each person, or of all together
    where that would leave too few, as of people with two photographs each.
    """
    first, second = split_rows(len(faces), faces.identity, share, seed)
    if len(second) < least:
        first, second = split_rows(len(faces), None, share, seed)
    return faces.take(first), faces.take(second)


def suspects(scene: Scene) -> Labelled:
    """The labelled photographs that the attacker has of people of the gallery: who may be in the victims' rows."""
    theirs = torch.isin(scene.attacker.labels("identity"), scene.gallery.labels("identity"))
    return joined(scene.attacker.take(theirs.nonzero().flatten()), scene.gallery)


def requests_a_pass(edge: Edge, faces: Labelled) -> int:
    """How many requests of `rehearse` hold each photograph once."""
    return -(-(len(faces) // edge.group_size) // max(GROUPS, BATCH // edge.group_size))


def gathered(parts: Iterable[Rows]) -> Rows:
    """All rows of `parts`, with groups numbered anew."""
    found: list[Rows] = []
    for part in parts:
        first = int(found[-1].group.max()) + 1 if found else 0
        found.append(part._replace(group=part.group + first))
    return Rows(*(torch.cat(values) for values in zip(*found, strict=True)))
