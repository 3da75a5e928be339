"""How large the tiles are: plain functions of the shapes. Chosen so that nothing spills; not measured on a GPU yet."""

from __future__ import annotations

from typing import NamedTuple

import torch

VECTOR = 16  # bytes that a thread reads or writes at once, at best
REGISTERS = 128  # of a thread's 255, for values; addresses, masks and coefficients take the others
LEAST_DOT = 16  # rows, columns and depth of the smallest product that tl.dot takes
ROW = 8  # images of a row of a product that is mixed, at least
FEW = 128  # tiles: a large GPU has as many multiprocessors
BUSY = 512  # programs: two at once on each of them, twice


class Line(NamedTuple):
    """Tiles of ``block`` elements, in the order of memory."""

    block: int
    warps: int


class Product(NamedTuple):
    """Tiles of ``items`` (groups of rows, or pixels of all images of a group) x ``columns``, in steps of ``depth``."""

    items: int
    columns: int
    depth: int
    warps: int


class Walk(NamedTuple):
    """Strips of ``width`` pixels of all images of a group, so many side by side, x ``columns``, in steps of ``depth``;
    down ``rows`` of windows."""

    strips: int
    width: int
    columns: int
    depth: int
    rows: int
    warps: int

    @property
    def results(self) -> int:
        """Windows of 3 pixels, 2 apart, of a row of all strips."""
        return self.strips * (self.width // 2 - 1)


def power_of_two(n: int) -> int:
    """The smallest one that is at least ``n``."""
    return 1 << max(0, n - 1).bit_length()


def words(dtype: torch.dtype) -> int:
    """Registers of a value in the type that ``dtype`` is summed in."""
    return 2 if dtype == torch.float64 else 1


def fit(n: int, limit: int) -> int:
    """A side of a product: as long as ``n``, if ``limit`` allows it."""
    return max(LEAST_DOT, min(power_of_two(n), 1 << limit.bit_length() - 1))


def line(size: int, n: int, dtype: torch.dtype, alive: int = 1) -> Line:
    """For S = ``size`` images of ``n`` elements, with ``alive`` (a power of two) tiles of all images at once: a vector
    of each image for each of 128 threads, while the registers last."""
    warps = 4
    vectors = VECTOR // dtype.itemsize * warps * 32
    fits = REGISTERS // words(dtype) // alive * warps * 32 // power_of_two(size)
    return Line(min(vectors, fits, power_of_two(n)), warps)


def product(size: int, groups: int, columns: int, depth: int, dtype: torch.dtype) -> Product:
    """For the rows of ``groups`` of S = ``size``, all that are there as items: small and deep where there are few, so
    that all of a device has something to do, and little to wait for."""
    few = groups * size * columns < FEW * 64 * 64
    rows, n, step = (16, 32, 256) if few else (64, 64, 128)  # step: bytes of a row
    items = max(1, rows // max(ROW, power_of_two(size)))
    return Product(items, fit(columns, n), fit(depth, step // dtype.itemsize), 4)


def convolution(size: int, pixels: int, channels: int, depth: int, dtype: torch.dtype, pools: bool) -> Product:
    """For the ``pixels`` of S = ``size`` images: all images of a group, of as many pixels as leave registers for what
    lies beside the sums: maxima and codes with a pool, other pixels' sums in small groups, operands without tensor
    cores."""
    wide = dtype.itemsize == 2 and size > 2 and not pools
    rows = 128 if wide else 64 // words(dtype)
    images = power_of_two(size)
    items = max(LEAST_DOT // images, 1, min(power_of_two(pixels), rows // images))
    step = 32 if dtype.itemsize == 2 else 16
    return Product(items, fit(channels, 64), fit(depth, step), 8 if dtype == torch.float32 else 4)


def walk(size: int, groups: int, height: int, width: int, channels: int, codes: bool, warpgroups: bool) -> Walk:
    """For 3x3 windows of stride 2, ``height`` x ``width`` of them, of 16-bit values: strips of so many pixels as leave
    registers for the windows and their codes, and so many rows that all of a device has something to do.
    ``warpgroups``: whether four warps multiply together, each all pixels by some channels; where not, neighbours may
    be in two."""
    images = power_of_two(size)
    strips, columns = max(1, ROW // images), fit(channels, 64)
    pixels = 128 if images >= ROW or not codes else 64
    warps = 4 if warpgroups else pixels // 16
    pixels = max(4, min(pixels // (strips * images), power_of_two(2 * width + 1)))
    strip = Walk(strips, pixels, columns, 32, height, warps)
    side_by_side = groups * -(-width // strip.results) * -(-channels // columns)
    return strip._replace(rows=-(-height // -(-BUSY // side_by_side)))
