"""From the settings of an experiment to its photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from .cache import decoded
from .celeba import load_celeba
from .folder import load_folder
from .labelled import Labelled
from .lfwa import load_lfwa
from .orl import orl_photos
from .photos import Photos
from .synthetic import synthetic_faces

if TYPE_CHECKING:
    from facemix.training.settings import DataSettings

__all__ = ["Splits", "open_data"]


class Splits(NamedTuple):
    """Disjoint sets of photographs; "validation" may be empty."""

    train: Labelled
    validation: Labelled
    test: Labelled


def open_data(settings: DataSettings) -> Splits:
    """Return the photographs that `settings` name, decoded, with the attributes that it names, in its order.

    What is decoded or drawn the first time is kept in `settings.cache`. Where a source has no validation set,
    `validation_share` of each person's training photographs become one.

    Raises:
        ValueError: for settings that do not suit each other or the source.
        DataError: for a file that is missing, damaged or does not suit the others.
        FileNotFoundError: if the ORL photographs are not installed.
    """
    if not 0 <= settings.validation_share < 1:
        raise ValueError(f"open_data: validation_share must be at least 0 and below 1, got {settings.validation_share}")
    parts = _read(settings)
    if "valid" not in parts:
        parts = _with_validation(parts, settings)
    splits = Splits(*(_chosen(_pixels(parts[name], settings), settings) for name in ("train", "valid", "test")))
    if not len(splits.train) or not len(splits.test):
        raise ValueError(
            "open_data: there must be photographs to train on and to test on, "
            f"got {len(splits.train)} and {len(splits.test)}"
        )
    if settings.task == "identity":
        _check_people(splits)
    return splits


def _read(settings: DataSettings) -> Mapping[str, Photos | Labelled]:
    """All that the source has: "train", "test" and perhaps "valid"."""
    if settings.source == "celeba":
        return load_celeba(_path(settings, "root"))
    if settings.source == "lfwa":
        return load_lfwa(_path(settings, "root"))
    if settings.source == "orl":
        return orl_photos()
    if not 0 < settings.test_share < 1:
        raise ValueError(f"open_data: test_share must be between 0 and 1, exclusive, got {settings.test_share}")
    whole = (
        load_folder(_path(settings, "root"), _path(settings, "labels"))
        if settings.source == "folder"
        else synthetic_faces(
            settings.people, settings.photos, settings.size, settings.channels, folder=_path(settings, "cache")
        )
    )
    train, test = whole.split(1 - settings.test_share, settings.split_seed)
    return {"train": train, "test": test}


def _path(settings: DataSettings, name: str) -> Path:
    path: Path | None = getattr(settings, name)
    if path is None:
        raise ValueError(f"open_data: {name} must be given for source {settings.source!r}, got none")
    return Path(path).expanduser()  # in a program it may be text


def _with_validation(parts: Mapping[str, Photos | Labelled], settings: DataSettings) -> dict[str, Photos | Labelled]:
    train, share = parts["train"], settings.validation_share
    if not share:
        return {**parts, "valid": train.take(torch.empty(0, dtype=torch.int64))}
    rest, held_out = train.split(1 - share, settings.split_seed)
    return {**parts, "train": rest, "valid": held_out}


def _pixels(part: Photos | Labelled, settings: DataSettings) -> Labelled:
    if isinstance(part, Labelled):
        return part
    images = (
        decoded(part.paths, settings.size, settings.channels, _path(settings, "cache"), squeezed=part.squeezed)
        if len(part)
        else np.empty((0, settings.channels, *settings.size), np.uint8)
    )
    return Labelled(images, part.identity, part.attributes, part.names)


def _chosen(part: Labelled, settings: DataSettings) -> Labelled:
    """The photographs with the attributes that are asked for."""
    names = list(part.attributes) if settings.attributes is None else settings.attributes
    if unknown := [name for name in names if name not in part.attributes]:
        raise ValueError(
            f"open_data: attributes must be of {', '.join(part.attributes) or 'none'} "
            f"(source {settings.source!r}), got {unknown[0]!r}"
        )
    if settings.task == "attributes" and not names:
        raise ValueError("open_data: there must be attributes for task 'attributes', got none")
    return Labelled(part.images, part.identity, {name: part.attributes[name] for name in names}, part.names)


def _check_people(splits: Splits) -> None:
    """Whom the network shall know must be among those it is trained on."""
    if splits.train.identity is None:
        raise ValueError("open_data: people must be known for task 'identity', got photographs without identity")
    known = splits.train.identity
    for name in ("validation", "test"):
        identity = getattr(splits, name).identity
        if strangers := len(identity[~torch.isin(identity, known)].unique()):
            raise ValueError(
                f"open_data: everybody in the {name} set must be in the training set for task 'identity', got "
                f"{strangers} of {len(identity.unique())} people who are not: use task 'attributes', or other shares"
            )
