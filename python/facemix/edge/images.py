"""Photographs at the edge's door: files, arrays and PIL images in, uint8 [H, W, C] of the network's size out.

What cannot be used is refused by name, one image at a time; the rest goes on. Needs Pillow and NumPy, no PyTorch.
Training reads its photographs here, too (`facemix.data.decoded`): a network must be asked about what it learned from.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from facemix.errors import FacemixError

__all__ = [
    "GROUND",
    "MAX_PIXELS",
    "MIN_SIDE",
    "SUFFIXES",
    "ImageError",
    "Source",
    "load_image",
    "load_images",
    "load_squeezed",
]

Source: TypeAlias = str | os.PathLike[str] | NDArray[Any] | Image.Image

#: More pixels than this are refused before they are decoded: they would take 4 bytes each.
MAX_PIXELS = 50_000_000
#: A shorter side is refused, but for networks whose own images are that small.
MIN_SIDE = 16
#: What shows through transparent pixels, 0 to 255: mid grey, which networks see as about zero.
GROUND = 128

# Pillow knows more, such as EPS, which it hands to another program. Those are not for strangers' files.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: Names of files in a folder that are taken for images.
SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
     ".tif", ".tiff", ".webp")
)  # fmt: skip
MODES = {1: "L", 3: "RGB"}
MAX_16_BIT = 65535
# A JPEG is decoded at half, a quarter or an eighth of its size while that leaves twice what is needed: enough for the
# filter, and a large photograph costs little.
DRAFT = 2


class ImageError(FacemixError):
    """An image that cannot be used.

    Attributes:
        source: which: the path, or "array" or "image" for one in memory.
        problem: what is wrong with it.
    """

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source, self.problem = source, problem


def load_image(source: Source, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One image as the network wants it: uint8 `shape` = (H, W, C), C = 1 (grey) or 3 (RGB).

    Turned as its EXIF data says; of an animation or a file of several pictures the first; transparency over `GROUND`;
    16 bits scaled to 8; colour to grey by ITU-R 601-2; no colour profile is applied. Then the largest part of the
    shape's proportions around the centre is resized with an antialiased bilinear filter.

    Args:
        source: a path; an array [H, W] or [H, W, 1, 3 or 4] of uint8, uint16, or floats from 0 to 1; or a PIL image,
            which is not changed.

    Raises:
        ImageError: if there is no such file, it cannot be read, is damaged or no image, or has more than `MAX_PIXELS`
            pixels or fewer than `MIN_SIDE` a side.
        TypeError, ValueError: if `source` is nothing of that, or the shape has another number of channels.
    """
    return _loaded(source, shape, _cropped)


def load_squeezed(source: Source, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """As `load_image`, but all of the image, squeezed into the shape's proportions."""
    return _loaded(source, shape, _squeezed)


def _cropped(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return ImageOps.fit(image, size, method=Image.Resampling.BILINEAR)


def _squeezed(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def _loaded(
    source: Source, shape: tuple[int, int, int], fit: Callable[[Image.Image, tuple[int, int]], Image.Image]
) -> NDArray[np.uint8]:
    height, width, channels = shape
    if channels not in MODES:
        raise ValueError(f"load_image: shape must have 1 or 3 channels, got {channels}")
    label = _label(source)
    try:
        plain = _decoded(source, label, shape)
        if plain.mode != MODES[channels]:  # `convert` would copy
            plain = plain.convert(MODES[channels])
        fitted = fit(plain, (width, height))
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(label, f"must be an image ({', '.join(FORMATS)}), got something else") from None
    except Image.DecompressionBombError:
        raise ImageError(label, f"must have at most {MAX_PIXELS:,} pixels, got a header that says far more") from None
    except Exception as error:  # decoders raise about anything on damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(label, f"must be readable, got {reason or type(error).__name__}") from error
    return np.array(fitted).reshape(shape)


def load_images(
    sources: Iterable[Source], shape: tuple[int, int, int], *, threads: int = 2, ahead: int = 64
) -> Generator[NDArray[np.uint8] | ImageError, None, None]:
    """What `load_image` gives for each of `sources`, in order; the error where it refuses one.

    `threads` decode at most `ahead` images before they are asked for, so that any number of images takes little
    memory. `sources` is read in the caller's thread.
    """
    waiting: deque[Future[NDArray[np.uint8] | ImageError]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="facemix-decode") as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(_load, source, shape))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _load(source: Source, shape: tuple[int, int, int]) -> NDArray[np.uint8] | ImageError:
    try:
        return load_image(source, shape)
    except ImageError as error:
        return error


def _label(source: Source) -> str:
    if isinstance(source, np.ndarray):
        return "array"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    raise TypeError(f"load_image: source must be a path, an array or a PIL image, got {type(source).__name__}")


def _decoded(source: Source, label: str, shape: tuple[int, int, int]) -> Image.Image:
    """Upright, of 8 bits, without transparency, and of a size that will do."""
    image = _from_array(source, label) if isinstance(source, np.ndarray) else source
    if isinstance(image, Image.Image):
        _check_size(image, label, shape)
        return _plain(ImageOps.exif_transpose(image), label)  # a copy, upright or not
    with _open_file(Path(image), label) as file:
        _check_size(file, label, shape)
        side = DRAFT * max(shape[:2])
        file.draft(None, (side, side))  # JPEG only; no smaller than this
        file.load()
        ImageOps.exif_transpose(file, in_place=True)
        return _plain(file, label)


def _check_size(image: Image.Image, label: str, shape: tuple[int, int, int]) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(label, f"must have at most {MAX_PIXELS:,} pixels, got {width} x {height}")
    least = min(MIN_SIDE, *shape[:2])
    if min(width, height) < least:
        raise ImageError(label, f"must have at least {least} pixels a side, got {width} x {height}")


def _open_file(path: Path, label: str) -> Image.Image:
    status = path.stat()
    # Opening a pipe would wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(label, f"must be a file, got {'a folder' if stat.S_ISDIR(status.st_mode) else 'no file'}")
    if not status.st_size:
        raise ImageError(label, "must be an image, got an empty file")
    Image.init()
    return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])


def _plain(image: Image.Image, label: str) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # "I" has 32 bits; 16 of them are used
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and values.dtype.kind == "i":
            if values.min() < 0 or values.max() > MAX_16_BIT:
                raise ImageError(label, "must have at most 16 bits a value, got more")
            values = values.astype(np.uint16)
        return _from_array(values, label)
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (GROUND, GROUND, GROUND, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image


def _from_array(values: NDArray[Any], label: str) -> Image.Image:
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise ImageError(label, f"must have shape [H, W] or [H, W, 1, 3 or 4], got {list(values.shape)}")
    if not 1 <= values.size <= 4 * MAX_PIXELS:
        raise ImageError(label, f"must have 1 to {MAX_PIXELS:,} pixels, got shape {list(values.shape)}")
    return Image.fromarray(_eight_bits(values, label))


def _eight_bits(values: NDArray[Any], label: str) -> NDArray[np.uint8]:
    """uint8 as it is; uint16, and floats from 0 to 1, scaled and rounded."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if (kind, size) == ("u", 1):
        return np.ascontiguousarray(values)
    if (kind, size) == ("u", 2):
        return ((values.astype(np.uint32) * 255 + MAX_16_BIT // 2) // MAX_16_BIT).astype(np.uint8)
    if kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):  # nor is that so of NaN
            raise ImageError(label, "must have values from 0 to 1 where they are floats, got others")
        return np.rint(values.astype(np.float32) * 255).astype(np.uint8)
    raise ImageError(label, f"must have dtype uint8, uint16 or a float, got {values.dtype}")
