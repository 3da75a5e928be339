"""Your own photographs: a folder of images, and a CSV file that says what is on them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from .labelled import UNKNOWN
from .photos import DataError, Photos, check_photos, numbered

__all__ = ["load_folder"]

IMAGE, IDENTITY = "image", "identity"
VALUES = {"0": 0, "1": 1, "": UNKNOWN}
ADVICE = (
    "the first column names a photograph below the folder, `identity` a person, every other column is 0, 1 or nothing"
)
NAMES = "names of 1 to 200 printable characters"  # what an edge's file can hold


def load_folder(folder: Path, labels: Path) -> Photos:
    """Read photographs that a CSV file lists.

    Args:
        folder: what the paths in the file are relative to.
        labels: a CSV file with a header. Column `image`: a path, in one row only. Column `identity`, if there is one:
            a name, the same for photographs of the same person. Every other column: an attribute, 0, 1, or nothing
            where it cannot be told.

    Raises:
        DataError: naming the line, or the photograph, that is not as it must be.
    """
    if not labels.is_file():
        raise DataError(f"load_folder: labels must be a CSV file, got none at {labels}: {ADVICE}")
    try:
        text = labels.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"load_folder: {labels} must be text in UTF-8, got other bytes: {error}") from None
    reader = csv.DictReader(io.StringIO(text), strict=True)
    header = list(reader.fieldnames or [])
    if IMAGE not in header or len(set(header)) != len(header):
        raise DataError(
            f"load_folder: the header of {labels} must have {IMAGE!r} and no name twice, got {header[:8]}: {ADVICE}"
        )
    try:
        rows = list(reader)
    except csv.Error as error:
        raise DataError(f"load_folder: line {reader.line_num} of {labels} must be CSV, got {error}") from None
    if not rows:
        raise DataError(f"load_folder: {labels} must list at least one photograph, got none")
    columns = [name for name in header if name not in (IMAGE, IDENTITY)]
    if bad := [name for name in columns if not _is_name(name)]:
        raise DataError(f"load_folder: the header of {labels} must have {NAMES}, got {bad[0][:20]!r}")
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise DataError(f"load_folder: row {number} of {labels} must have {len(header)} fields: {ADVICE}")
        if bad := [name for name in columns if row[name].strip() not in VALUES]:
            raise DataError(
                f"load_folder: {bad[0]} in row {number} of {labels} must be 0, 1 or nothing, "
                f"got {row[bad[0]][:20]!r}: {ADVICE}"
            )
    people = [row[IDENTITY].strip() for row in rows] if IDENTITY in header else []
    if bad := [name for name in people if not _is_name(name)]:
        raise DataError(f"load_folder: {IDENTITY} in {labels} must be {NAMES}, got {bad[0][:20]!r}: {ADVICE}")
    table = torch.tensor([[VALUES[row[name].strip()] for name in columns] for row in rows], dtype=torch.int8)
    photos = Photos(
        [folder / row[IMAGE].strip() for row in rows],
        numbered(people) if people else None,
        {name: table[:, n].contiguous() for n, name in enumerate(columns)},
        tuple(dict.fromkeys(people)) or None,
    )
    check_photos("load_folder", photos.paths, ADVICE)
    _check_once(photos.paths, labels)
    return photos


def _check_once(paths: Sequence[Path], labels: Path) -> None:
    """A photograph in two rows would be trained on and tested on."""
    row_of: dict[Path, int] = {}
    for number, path in enumerate(paths, 1):
        first = row_of.setdefault(path.resolve(), number)
        if first != number:
            rule = f"each row of {labels} must list another photograph"
            raise DataError(f"load_folder: {rule}, got {path} in rows {first} and {number}")


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= 200 and text.isprintable()
