"""Photographs decoded once: a memory-mapped file of bytes, as fast to read as the disk, or as memory from then on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from facemix.atomic import atomic_path, check_folder
from facemix.edge.images import ImageError, load_image, load_squeezed

from .photos import DataError

__all__ = ["decode", "decoded", "kept"]

FORMAT = 2  # of the pixels: another number where files are decoded in another way
BEGUN = ".*.npy.*.npy"  # what `atomic_path` calls a file until it is whole
AHEAD = 64  # photographs that are decoded before the one that is written


def decoded(
    paths: Sequence[Path], size: tuple[int, int], channels: int, folder: Path, *, squeezed: bool = False
) -> NDArray[np.uint8]:
    """Return the photographs of `paths`, resized, as a read-only memory map uint8 [N, channels, H, W].

    They are read as the edge reads them, `facemix.edge.images.load_image`: a network learns from the pixels that it is
    asked about later. They are decoded the first time and kept in `folder`; the file's name holds a digest of the
    paths, their sizes and times, so that a changed photograph is decoded again.

    Args:
        paths: at least one image file.
        size: (height, width).
        channels: 1 (grey) or 3 (red, green, blue).
        folder: where to keep the file.
        squeezed: take all of a photograph of other proportions, not the part around its centre.

    Raises:
        ValueError: for an argument that will not do.
        DataError: naming a photograph that cannot be decoded.
        OSError: if the disk is full, say.
    """
    if channels not in (1, 3):
        raise ValueError(f"decoded: channels must be 1 or 3, got {channels}")
    if not paths or min(size) < 1:
        raise ValueError(f"decoded: there must be photographs and pixels, got {len(paths)} of size {size}")
    return kept(
        folder / f"photos-{_digest(paths, size, channels, squeezed)}.npy",
        (len(paths), channels, *size),
        lambda array: _decode(paths, size, channels, squeezed, array),
    )


def kept(path: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], object]) -> NDArray[np.uint8]:
    """Return a file as a read-only memory map uint8 of `shape`; where there is none, or a damaged one, `fill` fills it.

    Of several processes that need it, one fills it, and the others wait. What a process that was killed had begun, the
    next one that fills a file removes.

    Raises:
        OSError: if the disk is full, say, before anything is filled.
    """
    array = _mapped(path, shape)
    if array is not None:
        return array
    with _alone(path.parent):
        array = _mapped(path, shape)  # somebody else's, by now
        if array is None:
            for leftover in path.parent.glob(BEGUN):  # whoever wrote it held the lock, and is gone
                with contextlib.suppress(OSError):  # another user's, in a folder of all
                    leftover.unlink()
            with atomic_path(path) as temporary:
                array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    # A full disk is an error here, and a signal that kills in `fill`.
                    with temporary.open("rb+") as file:
                        os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
                fill(array)
                array.flush()
                del array
            array = np.lib.format.open_memmap(path, "r")
    return array


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The file as it must be; None where it is not."""
    try:
        array = np.lib.format.open_memmap(path, "r")
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no header, or less than it says
        return None
    return array if (array.shape, array.dtype) == (shape, np.uint8) else None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process, however that ends."""
    check_folder("open_data: cache", folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def decode(path: Path, size: tuple[int, int], channels: int, *, squeezed: bool = False) -> NDArray[np.uint8]:
    """Return one photograph, uint8 [channels, H, W]; see `decoded`.

    Raises:
        DataError: if it cannot be decoded.
    """
    load = load_squeezed if squeezed else load_image
    try:
        pixels = load(path, (*size, channels))
    except ImageError as error:
        raise DataError(f"decoded: {error.source} {error.problem}") from error
    return pixels.transpose(2, 0, 1)


def _decode(
    paths: Sequence[Path], size: tuple[int, int], channels: int, squeezed: bool, array: NDArray[np.uint8]
) -> None:
    # Pillow decodes without Python's lock. A window of them is under way, so that memory stays small.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decoding", unit="photo", disable=None) as bar,
    ):
        rest = iter(paths)
        one = partial(decode, size=size, channels=channels, squeezed=squeezed)
        waiting = [pool.submit(one, path) for path in islice(rest, AHEAD)]
        try:
            for row in range(len(paths)):
                array[row] = waiting.pop(0).result()
                waiting += [pool.submit(one, path) for path in islice(rest, 1)]
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _digest(paths: Sequence[Path], size: tuple[int, int], channels: int, squeezed: bool) -> str:
    total = hashlib.sha256(f"{FORMAT} {size} {channels} {squeezed}".encode())
    for path in paths:
        status = path.stat()
        total.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return total.hexdigest()[:24]
