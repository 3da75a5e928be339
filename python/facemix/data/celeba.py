"""CelebA (Liu et al., ICCV 2015): 202 599 aligned photographs of 10 177 people, 218 x 178 pixels, 40 attributes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from .photos import DataError, Photos, check_photos, found, numbered

__all__ = ["HEIGHT", "WIDTH", "load_celeba"]

HEIGHT, WIDTH = 218, 178
SPLITS = ("train", "valid", "test")  # as the partition file numbers them

IMAGES = ("img_align_celeba", "Img/img_align_celeba")
ATTRIBUTES, IDENTITY = "list_attr_celeba.txt", "identity_CelebA.txt"
PARTITION = "list_eval_partition.txt"
ADVICE = (
    "download img_align_celeba.zip (unpack it), Anno/list_attr_celeba.txt, Anno/identity_CelebA.txt and "
    "Eval/list_eval_partition.txt from the CelebA page of MMLAB, and keep those names in that folder"
)


def load_celeba(root: Path) -> dict[str, Photos]:
    """Read the official files, as they are unpacked: all in one folder, or in Img, Anno and Eval.

    Args:
        root: the folder that holds them.

    Returns:
        "train", "valid" and "test", as the authors split them: 162 770, 19 867 and 19 962 photographs, with identity
        (no person is in two of them) and the 40 attributes.

    Raises:
        DataError: naming a file that is missing, truncated or does not suit the others.
    """
    folder = found("load_celeba", root, IMAGES, ADVICE)
    names, attributes = _attributes(_annotation(root, ATTRIBUTES))
    people = _column(_annotation(root, IDENTITY), names)
    partition = _column(_annotation(root, PARTITION), names)
    if strange := sorted(set(partition) - {"0", "1", "2"}):
        raise DataError(f"load_celeba: {PARTITION} must say 0, 1 or 2 for each photograph, got {strange[0][:20]!r}")
    photos = Photos([folder / name for name in names], numbered(people), attributes)
    check_photos("load_celeba", photos.paths, ADVICE)
    place = torch.tensor([int(number) for number in partition])
    return {split: photos.take(torch.nonzero(place == number).flatten()) for number, split in enumerate(SPLITS)}


def _annotation(root: Path, name: str) -> Path:
    return found("load_celeba", root, (name, f"Anno/{name}", f"Eval/{name}"), ADVICE)


def _attributes(path: Path) -> tuple[list[str], dict[str, Tensor]]:
    """A count, a line with the attributes' names, and then for each photograph its name and -1 or 1 for each."""
    lines = path.read_text().splitlines()
    if len(lines) < 2 or not lines[0].strip().isdecimal():
        raise DataError(f"load_celeba: {path} must begin with a count and the attributes' names: {ADVICE}")
    count, columns = int(lines[0]), lines[1].split()
    rows = list(_rows(path, lines[2:], 1 + len(columns), first=3))
    if len(rows) != count:
        raise DataError(f"load_celeba: {path} must have {count} photographs, as it says, got {len(rows)}: {ADVICE}")
    values = [row[1:] for row in rows]
    if any(value not in ("1", "-1") for row in values for value in row):
        raise DataError(f"load_celeba: the attributes in {path} must be 1 or -1: {ADVICE}")
    table = (torch.tensor([[value == "1" for value in row] for row in values]).view(count, len(columns))).to(torch.int8)
    return [row[0] for row in rows], {name: table[:, n].contiguous() for n, name in enumerate(columns)}


def _column(path: Path, names: list[str]) -> list[str]:
    """What a file of two columns says of each photograph."""
    said = dict(_rows(path, path.read_text().splitlines(), 2, first=1))
    if missing := [name for name in names if name not in said]:
        raise DataError(
            f"load_celeba: {path} must have a line for each photograph of {ATTRIBUTES}, got none for {missing[0]} "
            f"and {len(missing) - 1} more: {ADVICE}"
        )
    return [said[name] for name in names]


def _rows(path: Path, lines: list[str], columns: int, first: int) -> Iterator[list[str]]:
    for number, line in enumerate(lines, first):
        words = line.split()
        if len(words) != columns:
            raise DataError(
                f"load_celeba: line {number} of {path} must have {columns} columns, got {len(words)}: {ADVICE}"
            )
        yield words
