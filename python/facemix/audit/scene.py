"""Who is attacked, by whom, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from facemix.data import Labelled, Splits
from facemix.device import best_device
from facemix.training.batches import seed_of
from facemix_ops.edge.grouping import digest

from .decoder import Decoder
from .edge import Edge
from .request import Request, Secrets

__all__ = ["Cloud", "Scene", "joined", "send"]

#: Received rows float32 [b, c, h, w] -> the outputs [b, ...] that the cloud gives back, on the CPU.
Cloud = Callable[[Tensor], Tensor]

GROUPS = 8  # in a request
ATTACKER = 8192  # photographs: a gigabyte, at the size of CelebA's


@dataclass(frozen=True)
class Scene:
    """All that attacks look at, and the truth that they are scored by. No photograph is in two of the three sets.

    Attributes:
        edge: what is attacked.
        victims: the photographs that it sends.
        attacker: photographs with labels that the attacker has: to train on. The same people where there are such.
        gallery: one photograph of each of the victims' people, where people are known: to look for them. Else empty.
        cloud: what the cloud runs on received rows, or None where the audit has only the edge.
        seed: of everything.
        effort: "quick" where a minute must do for all attacks together; "full": five, on two cores.

    Raises:
        ValueError: if a photograph is in two sets, or there are fewer victims than a group has.
    """

    edge: Edge
    victims: Labelled
    attacker: Labelled
    gallery: Labelled
    cloud: Cloud | None = None
    seed: int = 0
    effort: Literal["quick", "full"] = "full"

    def __post_init__(self) -> None:
        if len(self.victims) < self.edge.group_size:
            raise ValueError(
                f"audit: there must be at least a group of victims, {self.edge.group_size}, got {len(self.victims)}"
            )
        sets = {"victims": self.victims, "attacker": self.attacker, "gallery": self.gallery}
        owner: dict[bytes, str] = {}
        for name, faces in sets.items():
            for image in faces.images:
                if (other := owner.setdefault(digest(image), name)) != name:
                    raise ValueError(f"audit: a photograph must be in one set only, got one in {other} and {name}")

    @classmethod
    def of(
        cls,
        edge: Edge,
        splits: Splits,
        *,
        cloud: Cloud | None = None,
        victims: int = 120,
        seed: int = 0,
        effort: Literal["quick", "full"] = "full",
    ) -> Scene:
        """Victims are photographs of the test set; the attacker has the training set, and what of the test set shows
        victims whom the training set does not know. Photographs that are there twice are used once.

        Args:
            victims: at most how many. The attacker has at most ATTACKER photographs, drawn at random.
        """
        test, train = splits.test, splits.train
        if len(train) > ATTACKER:
            drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed_of(seed, "attacker")))
            train = train.take(drawn[:ATTACKER].sort().values)
        strangers = True
        if train.identity is not None and test.identity is not None:
            strangers = not bool(torch.isin(test.identity, train.identity).all())
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed_of(seed, "victims")))
        chosen, rest = order[:victims], order[victims:]
        if strangers and test.identity is not None:  # every second photograph of everybody
            turn = _turns(test.identity[order])
            chosen, rest = order[turn % 2 == 0][:victims], order[turn % 2 == 1]
        photographs = test.take(chosen.sort().values)
        known = train if not strangers else joined(train, test.take(rest))
        known = known.take(_unseen(known, photographs))
        gallery = torch.zeros(len(known), dtype=torch.bool)
        if known.identity is not None and photographs.identity is not None:
            gallery = (_turns(known.identity) == 0) & torch.isin(known.identity, photographs.identity)
        return cls(
            edge, photographs, known.take((~gallery).nonzero().flatten()), known.take(gallery.nonzero().flatten()),
            cloud, seed, effort,
        )  # fmt: skip

    @cached_property
    def decoder(self) -> Decoder:
        """Draws photographs from rows; learned once. Raises ValueError as `Decoder` does."""
        return Decoder(self.edge, self.attacker)

    @property
    def device(self) -> torch.device:
        """Where attacks train."""
        return best_device()

    @property
    def half(self) -> int:
        """Groups of a request that leaves as many victims out as it holds, at most GROUPS; 0 where they are too few."""
        return min(GROUPS, len(self.victims) // (2 * self.edge.group_size))

    def seed_of(self, *parts: int | str) -> int:
        """A seed that the scene's and `parts` decide."""
        return seed_of(self.seed, *parts)

    def generator(self, *parts: int | str) -> torch.Generator:
        """A generator on the CPU, with such a seed."""
        return torch.Generator().manual_seed(self.seed_of(*parts))

    def rows(self, number: int, groups: int = GROUPS) -> Tensor:
        """Which victims are in request `number`: int64 [N], distinct, whole groups, at most `groups` of them."""
        size = self.edge.group_size
        count = min(groups, len(self.victims) // size) * size
        order = torch.randperm(len(self.victims), generator=self.generator("rows", number))
        return order[:count]

    def request(self, number: int, groups: int = GROUPS, reuse: Secrets | None = None) -> Request:
        """Request `number`, of the victims in `rows(number, groups)`; the same again if asked again."""
        return send(self.edge, self.victims, self.rows(number, groups), self.generator("request", number), reuse)


def send(
    edge: Edge, faces: Labelled, rows: Tensor, generator: torch.Generator, reuse: Secrets | None = None
) -> Request:
    """The request of the photographs `rows` of `faces`."""
    return edge.send(torch.from_numpy(np.asarray(faces.images[rows.numpy()])), generator, reuse)


def joined(first: Labelled, second: Labelled) -> Labelled:
    """The photographs of both. People are known only where they are in both."""
    identity = None
    if first.identity is not None and second.identity is not None:
        identity = torch.cat((first.identity, second.identity))
    return Labelled(
        np.concatenate((np.asarray(first.images), np.asarray(second.images))),
        identity,
        {name: torch.cat((value, second.attributes[name])) for name, value in first.attributes.items()},
        first.names,
    )


def _turns(identity: Tensor) -> Tensor:
    """How many rows before each show the same person: int64 [N]."""
    seen: dict[int, int] = {}
    turns = []
    for person in identity.tolist():
        turns.append(seen.get(person, 0))
        seen[person] = turns[-1] + 1
    return torch.tensor(turns, dtype=torch.int64)


def _unseen(known: Labelled, victims: Labelled) -> Tensor:
    """The rows of `known` that are not among the victims, each photograph once."""
    seen = {digest(image) for image in victims.images}
    rows = []
    for row, image in enumerate(known.images):
        name = digest(image)
        if name not in seen:
            rows.append(row)
        seen.add(name)
    return torch.tensor(rows, dtype=torch.int64)
