"""Which images go into a request: whole groups of different ones, filled with decoys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from facemix_ops.edge.grouping import decoys_for, digest
from facemix_ops.edge.preprocess import check_images

__all__ = ["Batch", "Decoys", "Remembered", "compose"]

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

    def beside(self, digests: Sequence[bytes], count: int) -> list[int]:
        """Rows of the `count` decoys that go with images, see `facemix_ops.edge.grouping`.

        Raises:
            ValueError: if there are not as many.
        """
        rows = decoys_for(digests, self._digests, count)
        if len(rows) < count:
            raise ValueError(
                f"classify: decoys must have at least {count} images that differ from the caller's to fill the last "
                f"group, got {len(rows)}: pass decoys=, or as many different images as make whole groups"
            )
        return rows


def compose(
    images: Images, decoys: Decoys, group_size: int, request_groups: int
) -> tuple[list[Batch], NDArray[np.int64]]:
    """Cut `images` [N, H, W, C] into requests of at most `request_groups` groups each, as even as can be. The same
    image twice goes out once; who shares a request follows from the images, as who shares a group does.

    Returns:
        The batches, and int64 [N]: the row of `images` that stands for each of them.

    Raises:
        ValueError: see `Decoys.beside`.
    """
    first: dict[bytes, int] = {}
    stand_ins = np.array([first.setdefault(digest(image), row) for row, image in enumerate(images)])
    names = sorted(first)
    rows = [first[name] for name in names]
    groups = -(-len(rows) // group_size)
    extra = decoys.beside(names, groups * group_size - len(rows))
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
