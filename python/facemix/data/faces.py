"""A set of labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .labelled import Labelled, split_rows

__all__ = ["Faces"]


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
        """Split into two disjoint sets, see `split_rows`."""
        first, second = split_rows(len(self), self.identity, share, seed)
        return self.take(first), self.take(second)

    def labelled(self) -> Labelled:
        """The same, as pixels of whole numbers."""
        return Labelled((self.images * 255).round().to(torch.uint8).numpy(), self.identity, self.attributes)
