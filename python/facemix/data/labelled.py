"""Labelled photographs as pixels, in memory or mapped from a file: what networks are trained on and tested on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["UNKNOWN", "Labelled", "split_rows"]

#: The value of an attribute that nobody can tell, to be left out of losses and of accuracies.
UNKNOWN = -1


@dataclass(frozen=True)
class Labelled:
    """Photographs and what is on them.

    Attributes:
        images: uint8 [N, C, H, W], from 0 (black) to 255 (white); an array, or a memory map.
        identity: int64 [N], a number from 0 for each person; None where people are not known.
        attributes: int8 [N] for each binary attribute, by name: 1, 0, or UNKNOWN where it cannot be told.
        names: of the people, by number; None where they have none.
    """

    images: NDArray[np.uint8]
    identity: Tensor | None = None
    attributes: dict[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def people(self) -> int:
        """How many identities there are, 0 where they are not known."""
        return 0 if self.identity is None or not len(self) else int(self.identity.max()) + 1

    def take(self, rows: Tensor) -> Labelled:
        """Return the photographs of `rows` (int64 [M]), copied into memory, with their labels."""
        return Labelled(
            self.images[rows.numpy()],
            None if self.identity is None else self.identity[rows],
            {name: value[rows] for name, value in self.attributes.items()},
            self.names,
        )

    def digest(self) -> str:
        """What tells these photographs from others: of all labels, and of up to 256 images, evenly taken."""
        total = hashlib.sha256(f"{self.images.shape} {self.names}".encode())
        for row in range(0, len(self), max(len(self) // 256, 1)):
            total.update(self.images[row].tobytes())
        for name, values in (("identity", self.identity), *sorted(self.attributes.items())):
            total.update(name.encode())
            total.update(b"" if values is None else values.numpy().tobytes())
        return total.hexdigest()[:16]

    def labels(self, task: Literal["identity", "attributes"]) -> Tensor:
        """Return what a network is to tell: identity, int64 [N], or all attributes, int8 [N, A].

        Raises:
            ValueError: if people are not known, or there are no attributes.
        """
        if task == "attributes" and self.attributes:
            return torch.stack(list(self.attributes.values()), dim=1)
        if task == "attributes" or self.identity is None:
            raise ValueError(f"labels: photographs must have labels for task {task!r}, got none")
        return self.identity

    def floats(self) -> Tensor:
        """Return the images as float32, from 0 to 1, copied into memory."""
        return torch.from_numpy(np.asarray(self.images)).float() / 255

    def split(self, share: float, seed: int) -> tuple[Labelled, Labelled]:
        """Split into two disjoint sets, see `split_rows`."""
        first, second = split_rows(len(self), self.identity, share, seed)
        return self.take(first), self.take(second)


def split_rows(count: int, identity: Tensor | None, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows 0 to count - 1 into two disjoint sets, the first with `share` of each person's rows (rounded).

    The rows of each person are drawn without replacement by a generator seeded with `seed`, so that the same seed
    gives the same split on every machine; rows keep their order.

    Args:
        count: how many rows.
        identity: int64 [count]; where it is None, all are taken for one person's.

    Raises:
        ValueError: if `share` is not between 0 and 1, exclusive.
    """
    if not 0 < share < 1:
        raise ValueError(f"split: share must be between 0 and 1, exclusive, got {share}")
    person_of = torch.zeros(count, dtype=torch.int64) if identity is None else identity
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(count, dtype=torch.bool)
    for rows in torch.argsort(person_of, stable=True).split(person_of.bincount().tolist()):
        chosen = torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]
        first[rows[chosen]] = True
    return torch.nonzero(first).flatten(), torch.nonzero(~first).flatten()
