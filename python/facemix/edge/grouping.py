"""Which images go into a request: whole groups of different ones, filled with decoys."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge.preprocess import check_images

__all__ = ["Batch", "Decoys", "Remembered", "compose", "digest"]

T = TypeVar("T")
Images = NDArray[np.uint8]

REMEMBERED = 10_000


@dataclass(frozen=True)
class Batch:
    """The images of one request; they divide into groups.

    Attributes:
        rows: of the caller's images, all different.
        decoys: rows of the decoys that go with them.
    """

    rows: list[int]
    decoys: list[int]

    def __len__(self) -> int:
        return len(self.rows) + len(self.decoys)

    def gather(self, images: Images, decoys: Decoys) -> Images:
        """uint8 [B, H, W, C]: the caller's images first."""
        if not self.decoys:
            return images[self.rows]
        return np.concatenate((images[self.rows], decoys.images[self.decoys]))


class Decoys:
    """Public images of the same kind as the caller's. They keep groups full, no more: a cloud that has the public set
    may try to find them in the mixtures.

    Args:
        images: uint8 [D, H, W, C], D >= 0; those that repeat are left out. None: there are none.
    """

    def __init__(self, images: Images | None, image_shape: tuple[int, int, int]) -> None:
        if images is None:
            images = np.empty((0, *image_shape), np.uint8)
        elif len(images):
            check_images("classify", "decoys", images, image_shape)
        different = {digest(image): row for row, image in enumerate(images)}
        self.images = images if len(different) == len(images) else images[list(different.values())]
        self._digests = list(different)

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, count: int, others: Iterable[bytes]) -> list[int]:
        """Rows of so many decoys at random, all different, and different from images with digests `others`.

        Raises:
            ValueError: if there are not as many.
        """
        taken = set(others)
        usable = [row for row, name in enumerate(self._digests) if name not in taken]
        if len(usable) < count:
            raise ValueError(
                f"classify: decoys must have at least {count} images that differ from the caller's to fill the last "
                f"group, got {len(usable)}: pass decoys=, or as many different images as make whole groups"
            )
        return secrets.SystemRandom().sample(usable, count)


def compose(
    images: Images, decoys: Decoys, group_size: int, request_groups: int
) -> tuple[list[Batch], NDArray[np.int64]]:
    """Cut `images` [N, H, W, C] into requests of at most `request_groups` groups each, as even as can be. The same
    image twice goes out once; who shares a request is random.

    Returns:
        The batches, and int64 [N]: the row of `images` that stands for each of them.

    Raises:
        ValueError: see `Decoys.draw`.
    """
    first: dict[bytes, int] = {}
    stand_ins = np.array([first.setdefault(digest(image), row) for row, image in enumerate(images)])
    rows = list(first.values())
    secrets.SystemRandom().shuffle(rows)
    groups = -(-len(rows) // group_size)
    extra = decoys.draw(groups * group_size - len(rows), first)
    requests = -(-groups // request_groups)
    ends = [group_size * (groups * (r + 1) // requests) for r in range(requests)]
    batches = [Batch(rows[start:end], []) for start, end in zip([0, *ends], ends, strict=False)]
    batches[-1].decoys.extend(extra)
    return batches, stand_ins


class Remembered(dict[bytes, T]):
    """What came of images, by their digests, so that those which come again are not mixed again: of the last
    REMEMBERED, since a camera may run for weeks.
    """

    def forget(self) -> None:
        """Drop the oldest that are more than that."""
        for name in list(islice(self, max(0, len(self) - REMEMBERED))):
            del self[name]


def digest(image: Images) -> bytes:
    """Tells images apart by their bytes."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
