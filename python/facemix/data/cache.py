"""Photographs decoded once: a memory-mapped file of bytes, as fast to read as the disk, or as memory from then on."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from facemix.atomic import atomic_path, check_folder

from .photos import DataError

__all__ = ["decode", "decoded", "kept"]

MODES = {1: "L", 3: "RGB"}
AHEAD = 64  # photographs that are decoded before the one that is written


def decoded(paths: Sequence[Path], size: tuple[int, int], channels: int, folder: Path) -> NDArray[np.uint8]:
    """Return the photographs of `paths`, resized, as a read-only memory map uint8 [N, channels, H, W].

    They are decoded the first time and kept in `folder`; the file's name holds a digest of the paths, their sizes and
    times, so that a changed photograph is decoded again. An interruption leaves nothing behind.

    Args:
        paths: at least one image file.
        size: (height, width); antialiased bilinear, the sides are not kept in proportion.
        channels: 1 (grey) or 3 (red, green, blue).
        folder: where to keep the file.

    Raises:
        ValueError: for an argument that will not do.
        DataError: naming a photograph that cannot be decoded.
        OSError: if the disk is full, say.
    """
    if channels not in MODES:
        raise ValueError(f"decoded: channels must be 1 or 3, got {channels}")
    if not paths or min(size) < 1:
        raise ValueError(f"decoded: there must be photographs and pixels, got {len(paths)} of size {size}")
    return kept(
        folder / f"photos-{_digest(paths, size, channels)}.npy",
        (len(paths), channels, *size),
        lambda array: _decode(paths, size, channels, array),
    )


def kept(path: Path, shape: tuple[int, ...], fill: Callable[[NDArray[np.uint8]], object]) -> NDArray[np.uint8]:
    """Return a file as a read-only memory map uint8 of `shape`; where it does not exist yet, `fill` fills it.

    An interruption leaves nothing behind. Of several processes that need it, one fills it, and the others wait.
    """
    if not path.exists():
        with _alone(path.parent):
            if not path.exists():
                with atomic_path(path) as temporary:
                    array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
                    fill(array)
                    array.flush()
                    del array
    return np.load(path, mmap_mode="r")


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


def decode(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Return one photograph, uint8 [channels, H, W]; see `decoded`.

    Raises:
        DataError: if it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert(MODES[channels]).resize(size[::-1], Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        raise DataError(f"decoded: {path} must be an image, got {type(error).__name__}: {error}") from error
    return pixels.reshape(*size, channels).transpose(2, 0, 1)


def _decode(paths: Sequence[Path], size: tuple[int, int], channels: int, array: NDArray[np.uint8]) -> None:
    # Pillow decodes without Python's lock. A window of them is under way, so that memory stays small.
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        tqdm(total=len(paths), desc="decoding", unit="photo", disable=None) as bar,
    ):
        rest = iter(paths)
        waiting = [pool.submit(decode, path, size, channels) for path in islice(rest, AHEAD)]
        try:
            for row in range(len(paths)):
                array[row] = waiting.pop(0).result()
                waiting += [pool.submit(decode, path, size, channels) for path in islice(rest, 1)]
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _digest(paths: Sequence[Path], size: tuple[int, int], channels: int) -> str:
    total = hashlib.sha256(f"{size} {channels}".encode())
    for path in paths:
        status = path.stat()
        total.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return total.hexdigest()[:24]
