"""A set of labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["UNKNOWN", "Faces"]

#: The value of an attribute that nobody can tell, to be left out of losses and of accuracies.
UNKNOWN = -1


@dataclass(frozen=True)
class Faces:
    """Images with the identity of the person on each.

    Attributes:
        images: float32 [N, C, H, W], values from 0 (black) to 1 (white).
        identity: int64 [N], a number from 0 for each person.
        attributes: int8 [N] for each binary attribute, by name: 1, 0, or UNKNOWN where it cannot be told.
    """

    images: Tensor
    identity: Tensor
    attributes: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def people(self) -> int:
        """How many identities there are."""
        return int(self.identity.max()) + 1 if len(self) else 0

    def take(self, rows: Tensor) -> Faces:
        """Return the images of `rows` (int64 [M]), with their labels."""
        return Faces(
            self.images[rows],
            self.identity[rows],
            {name: value[rows] for name, value in self.attributes.items()},
        )

    def split(self, share: float, seed: int) -> tuple[Faces, Faces]:
        """Split into two disjoint sets, the first with `share` of each person's images (rounded).

        The images of each person are drawn without replacement by a generator seeded with `seed`, so that the
        same seed gives the same split on every machine; rows keep their order.

        Raises:
            ValueError: if `share` is not between 0 and 1, exclusive.
        """
        if not 0 < share < 1:
            raise ValueError(f"split: share must be between 0 and 1, exclusive, got {share}")
        generator = torch.Generator().manual_seed(seed)
        first = torch.zeros(len(self), dtype=torch.bool)
        for person in range(self.people):
            rows = torch.nonzero(self.identity == person).flatten()
            chosen = torch.randperm(len(rows), generator=generator)[: round(share * len(rows))]
            first[rows[chosen]] = True
        return self.take(torch.nonzero(first).flatten()), self.take(torch.nonzero(~first).flatten())
