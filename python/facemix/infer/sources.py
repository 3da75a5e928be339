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
    """
    for argument in arguments:
        if argument == STDIN:
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


def decoys_for(bundle: AnyBundle, folder: Path | None, images: Sequence[str]) -> NDArray[np.uint8] | None:
    """Public images to fill groups with: those in `folder`, see `public_images`; or None, where there is no folder, for
    those that the bundle holds.

    Args:
        bundle: of the edge half.
        folder: of images of the same kind as those to classify.
        images: those to classify, which cannot be decoys.

    Raises:
        OSError: if the folder cannot be read.
        ValueError: if there are not enough to fill any group, or one of `images` is among them.
    """
    if folder is None:
        decoys = None
        count, place = 0 if bundle.decoys is None else len(bundle.decoys), "the edge half"
    else:
        decoys = public_images(folder, bundle.image_shape, images)
        count, place = len(decoys), os.fspath(folder)
    # Identical images go out once, so that any call may need to fill a group.
    if count < bundle.group_size - 1:
        raise ValueError(
            f"infer: groups of {bundle.group_size} must be filled, which takes {bundle.group_size - 1} decoys, got "
            f"{count} in {place}: pass --decoys DIR, a folder of public images of the same kind, or export the edge "
            "half with decoys"
        )
    return decoys


def public_images(folder: Path, shape: tuple[int, int, int], images: Sequence[str] = ()) -> NDArray[np.uint8]:
    """The images in `folder`, uint8 [D, H, W, C] of `shape`; D at most `MAX_DECOYS`, spread evenly over more.

    Args:
        images: those to classify, which cannot be public.

    Raises:
        OSError: if the folder cannot be read.
        ValueError: if one of `images` is there.
    """
    paths = sorted(_images_in(os.fspath(folder)))
    private = {os.path.realpath(path) for path in images}
    if shared := [path for path in paths if os.path.realpath(path) in private]:
        raise ValueError(f"infer: decoys must be other images than those to classify, got {shared[0]} as both")
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
