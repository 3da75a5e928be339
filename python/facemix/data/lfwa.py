"""LFWA (Liu et al., ICCV 2015): the 13 143 photographs of Labeled Faces in the Wild that have 40 attributes each, the
same as CelebA's.
"""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import torch

from .photos import DataError, Photos, check_photos, found, numbered

__all__ = ["load_lfwa"]

IMAGES = ("lfw", "lfw-deepfunneled", "lfw_funneled")
ATTRIBUTES, SPLIT = "lfw_att_40.mat", "indices_train_test.mat"
ADVICE = (
    "download lfw_att_40.mat and indices_train_test.mat with LFWA from the CelebA page of MMLAB, and the photographs "
    "of Labeled Faces in the Wild (folder lfw, one folder for each person)"
)


def load_lfwa(root: Path) -> dict[str, Photos]:
    """Read the official files.

    Args:
        root: the folder that holds lfw_att_40.mat, indices_train_test.mat and the folder lfw.

    Returns:
        "train" and "test", as the authors split them: 6 263 and 6 880 photographs, with identity and the 40
        attributes. There is no validation set: take one from "train".

    Raises:
        DataError: naming a file that is missing, damaged or does not suit the others.
    """
    folder = found("load_lfwa", root, IMAGES, ADVICE)
    annotation = _matlab(root, ATTRIBUTES, ("AttrName", "label", "name"))
    columns, label = _texts(annotation["AttrName"]), np.asarray(annotation["label"])
    places = [PureWindowsPath(name) for name in _texts(annotation["name"])]
    if label.shape != (len(places), len(columns)) or not np.isin(label, (0, 1)).all():
        raise DataError(
            f"load_lfwa: {root / ATTRIBUTES} must have a label of 0 or 1 for each of {len(places)} names and "
            f"{len(columns)} attributes, got an array {list(label.shape)}: {ADVICE}"
        )
    table = torch.from_numpy(label.astype(np.int8))
    photos = Photos(
        [folder / Path(*place.parts) for place in places],
        numbered(place.parts[0] for place in places),
        {name: table[:, n].contiguous() for n, name in enumerate(columns)},
        squeezed=True,  # as the recipe of that name always had them, see docs/reproduce.md
    )
    split = _matlab(root, SPLIT, ("indices_img_train", "indices_img_test"))
    parts = {}
    for part in ("train", "test"):
        rows = np.asarray(split[f"indices_img_{part}"]).reshape(-1).astype(np.int64) - 1  # MATLAB counts from 1
        if not len(rows) or rows.min() < 0 or rows.max() >= len(places) or len(np.unique(rows)) != len(rows):
            raise DataError(
                f"load_lfwa: indices_img_{part} in {root / SPLIT} must be different numbers from 1 to {len(places)}, "
                f"got {len(rows)} of them: {ADVICE}"
            )
        parts[part] = photos.take(torch.from_numpy(rows))
        check_photos("load_lfwa", parts[part].paths, ADVICE)
    return parts


def _texts(cells: Any) -> list[str]:
    """A row or a column of cells."""
    return [str(text) for text in np.asarray(cells, dtype=object).ravel()]


def _matlab(root: Path, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of a MATLAB 7.3 file."""
    import mat73

    path = found("load_lfwa", root, (name, f"Anno/{name}"), ADVICE)
    try:
        contents = mat73.loadmat(path, use_attrdict=False)
    except Exception as error:  # of h5py, many kinds
        raise DataError(f"load_lfwa: {path} must be a MATLAB 7.3 file, got {type(error).__name__}: {ADVICE}") from error
    if missing := [field for field in fields if field not in contents]:
        raise DataError(f"load_lfwa: {path} must have {', '.join(fields)}, got no {', '.join(missing)}: {ADVICE}")
    return contents
