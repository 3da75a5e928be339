"""Which images to classify, and the decoys to fill groups with."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from facemix.edge.grouping import Decoys
from facemix.edge.images import SUFFIXES, ImageError, load_images

if TYPE_CHECKING:
    from .run import AnyBundle

__all__ = ["STDIN", "decoys_for", "find", "public_images"]

STDIN = "-"
MAX_DECOYS = 256  # kept in memory; more hide no better

POLL_SECONDS = 0.2
CHUNK_BYTES = 1 << 16


def find(arguments: Sequence[str]) -> Iterator[str]:
    """The paths that `arguments` stand for: a folder for the images in it and its folders, sorted (hidden ones and
    links to folders left out); "-" for one path a line of the standard input, as they come; all else for itself.

    Raises:
        OSError: if a folder cannot be read.
        ValueError: if there is no standard input.
    """
    for argument in arguments:
        if argument == STDIN:
            if sys.stdin is None:
                raise ValueError("infer: - must be given with a standard input, got a closed one")
            yield from filter(None, _lines(sys.stdin.fileno()))
        elif os.path.isdir(argument):
            yield from sorted(_images_in(argument))
        else:
            yield argument


def _lines(descriptor: int) -> Iterator[str]:
    """The lines of a file or pipe, as they come. No wait has no end: a Ctrl-C in the moment before would be lost."""
    rest = b""
    while True:
        while not select.select([descriptor], [], [], POLL_SECONDS)[0]:
            pass
        data = os.read(descriptor, CHUNK_BYTES)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        yield from (os.fsdecode(line.rstrip(b"\r")) for line in lines)
    yield os.fsdecode(rest)


def decoys_for(bundle: AnyBundle, folder: Path | None) -> NDArray[np.uint8] | None:
    """Public images to fill groups with: those in `folder`, see `public_images`; or None, where there is no folder, for
    those that the bundle holds.

    Args:
        bundle: of the edge half.
        folder: of images of the same kind as those to classify.

    Raises:
        OSError: if the folder cannot be read.
        ValueError: if there are not enough different ones to fill any group.
    """
    decoys = None if folder is None else public_images(folder, bundle.image_shape)
    place = "the edge half" if folder is None else os.fspath(folder)
    count = len(Decoys(bundle.decoys if decoys is None else decoys, bundle.image_shape))
    # Identical images go out once, so that any call may need to fill a group.
    if count < bundle.group_size - 1:
        raise ValueError(
            f"infer: groups of {bundle.group_size} must be filled, which takes {bundle.group_size - 1} different "
            f"decoys, got {count} in {place}: pass --decoys DIR, a folder of public images of the same kind, or export "
            "the edge half with decoys"
        )
    return decoys


def public_images(folder: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The images in `folder`, uint8 [D, H, W, C] of `shape`; D at most `MAX_DECOYS`, spread evenly over more.

    Raises:
        OSError: if the folder cannot be read.
    """
    paths = sorted(_images_in(os.fspath(folder)))
    if len(paths) > MAX_DECOYS:
        paths = [paths[n * len(paths) // MAX_DECOYS] for n in range(MAX_DECOYS)]
    decoys = [image for image in load_images(paths, shape) if not isinstance(image, ImageError)]
    return np.stack(decoys) if decoys else np.empty((0, *shape), np.uint8)


def _images_in(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(place, name)
