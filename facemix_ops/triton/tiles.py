"""How large the tiles are: plain functions of the shapes. Chosen so that nothing spills; not measured on a GPU yet."""

from __future__ import annotations

from typing import NamedTuple

import torch

VECTOR = 16  # bytes that a thread reads or writes at once, at best
REGISTERS = 128  # of a thread's 255, for values; addresses, masks and coefficients take the others
SUMS = 64  # of them for sums that live through a whole kernel, where tiles are made beside them
CONVOLVED = 72  # of the 128 that 16 warps leave a thread: for the sums of a convolution, and for tiles beside them
LEAST_DOT = 16  # rows, columns and depth of the smallest product that tl.dot takes
GOOD_DOT = 64  # rows that tensor cores want
DEPTH = 32  # of a step of a product, at most


class Line(NamedTuple):
    """Tiles of ``block`` elements, in the order of memory."""

    block: int
    warps: int


class Product(NamedTuple):
    """Tiles of ``rows`` x ``columns``, summed in steps of ``depth``."""

    rows: int
    columns: int
    depth: int
    warps: int


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


def product(size: int, rows: int, columns: int, depth: int, dtype: torch.dtype) -> Product:
    """For S = ``size`` products [rows, depth] x [depth, columns] that are mixed: rows enough for tensor cores, then as
    many columns as the sums allow (rows are read again for every block of columns)."""
    warps = 8
    area = SUMS // words(dtype) * warps * 32 // power_of_two(size)
    n = fit(columns, min(64, area // GOOD_DOT))
    m = fit(rows, min(128, area // n))
    sums = words(dtype) * power_of_two(size) * m * n
    return Product(m, n, fit(depth, DEPTH // words(dtype)), warps if sums > SUMS * 4 * 32 else 4)


def convolution(size: int, rows: int, columns: int, depth: int, dtype: torch.dtype, pools: bool) -> Product:
    """For S = ``size`` products as in ``product``, of rows that are gathered element by element, which costs more than
    to multiply them: all columns at once where they fit, then rows, and warps enough to wait for memory."""
    beside = 6 if pools or dtype.itemsize > 2 else 1  # tiles: of the product; of maximum, code and masks, or operands
    alive = power_of_two(size) + beside
    area = CONVOLVED // words(dtype) * 16 * 32 // alive
    n = fit(columns, min(64, area // LEAST_DOT))
    m = fit(rows, min(128, area // n))
    warps = next(warps for warps in (4, 8, 16) if warps == 16 or m * n * alive <= CONVOLVED // 2 * warps * 32)
    return Product(m, n, fit(depth, DEPTH // words(dtype)), warps)
