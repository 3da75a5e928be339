"""Photographs that lie on disk, with their labels: what the loaders of the large data sets give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from facemix.errors import FacemixError

from .labelled import split_rows

__all__ = ["DataError", "Photos"]


class DataError(FacemixError):
    """A file of a data set is missing, truncated or does not suit the others; the text names it, and says what to
    download and where to put it.
    """


@dataclass(frozen=True)
class Photos:
    """Photographs and what is on them.

    Attributes:
        paths: [N], of the image files.
        identity: int64 [N], a number from 0 for each person; None where people are not known.
        attributes: int8 [N] for each binary attribute, by name: 1, 0, or UNKNOWN where it cannot be told.
        names: of the people, by number; None where they have none.
        squeezed: whether all of a photograph is squeezed into the network's proportions, see `decoded`.
    """

    paths: Sequence[Path]
    identity: Tensor | None = None
    attributes: dict[str, Tensor] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    squeezed: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Tensor) -> Photos:
        """Return the photographs of `rows` (int64 [M]), with their labels."""
        return Photos(
            [self.paths[row] for row in rows.tolist()],
            None if self.identity is None else self.identity[rows],
            {name: value[rows] for name, value in self.attributes.items()},
            self.names,
            self.squeezed,
        )

    def split(self, share: float, seed: int) -> tuple[Photos, Photos]:
        """Split into two disjoint sets, see `split_rows`."""
        first, second = split_rows(len(self), self.identity, share, seed)
        return self.take(first), self.take(second)


def numbered(people: Iterable[str]) -> Tensor:
    """Numbers from 0 for names, equal ones for equal names, in the order in which they come; int64 [N]."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(person, len(numbers)) for person in people], dtype=torch.int64)


def found(set_name: str, root: Path, places: Sequence[str], advice: str) -> Path:
    """The first of `places` under `root` that exists.

    Raises:
        DataError: if none does; `advice` says where to get it.
    """
    for place in places:
        if (root / place).exists():
            return root / place
    where = " or ".join(str(root / place) for place in places)
    raise DataError(f"{set_name}: there must be {where}, got none: {advice}")


def check_photos(set_name: str, paths: Sequence[Path], advice: str) -> None:
    """Every photograph must be there, and must not be empty; folders are listed once.

    Raises:
        DataError: naming the first that is missing, and how many more are.
    """
    sizes = {
        folder: {entry.name: entry.stat().st_size for entry in folder.iterdir()} if folder.is_dir() else {}
        for folder in {path.parent for path in paths}
    }
    missing = [path for path in paths if not sizes[path.parent].get(path.name)]
    if missing:
        raise DataError(
            f"{set_name}: every photograph must be there and not empty, got none at {missing[0]}"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''} of {len(paths)}: {advice}"
        )
