"""The memories of a GPU, with everything checked that an address can get wrong."""

from __future__ import annotations

import bisect
import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

WARP = 32
SEVERAL = -1  # warps that read
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
Words = NDArray[Any]


class PtxError(Exception):
    """What a kernel must not do, or what this machine cannot."""


def _require_aligned(addresses: Words, size: int, where: str) -> None:
    wrong = addresses % addresses.dtype.type(size) != 0
    if wrong.any():
        raise PtxError(f"{where}: address {int(addresses[wrong][0]):#x} must be aligned to {size} bytes")


class Global:
    """Memory that kernels may touch: the bytes of the tensors that are added, where they lie in this process."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._regions: list[NDArray[np.uint8]] = []

    def add(self, begin: int, size: int) -> None:
        """Bytes [begin, begin + size), aligned to 16; the caller keeps them alive. What else was there is gone."""
        if size == 0:
            return
        if begin % 16:
            raise PtxError(f"global memory must begin at a multiple of 16, got {begin:#x}")
        first = bisect.bisect_left(self._begins, begin)
        if first and self._begins[first - 1] + len(self._regions[first - 1]) > begin:
            first -= 1
        last = bisect.bisect_left(self._begins, begin + size)
        self._begins[first:last] = [begin]
        self._regions[first:last] = [np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(begin))]

    def clear(self) -> None:
        """Forgets all that was added."""
        self._begins.clear()
        self._regions.clear()

    def _located(self, addresses: Words, size: int, count: int, what: str) -> list[tuple[Any, Words, Words]]:
        """Per region that is met: its words, their places, and which of the addresses these are."""
        _require_aligned(addresses, size * count, what)
        begins = np.array(self._begins, np.uint64)
        which = np.searchsorted(begins, addresses, "right") - 1
        found = []
        for region in np.unique(which):
            of = np.flatnonzero(which == region)
            inside = addresses[of] - begins[region] if region >= 0 else addresses[of]
            if region < 0 or (inside > np.uint64(max(0, len(self._regions[region]) - size * count))).any():
                bad = addresses[of][0] if region < 0 else addresses[of][inside.argmax()]
                raise PtxError(f"{what}: {size * count} bytes at {int(bad):#x} are outside of every tensor of the call")
            words = self._regions[region]
            whole = words[: len(words) // size * size].view(UNSIGNED[size])
            found.append((whole, (inside // np.uint64(size)).astype(np.int64), of))
        return found

    def load(self, addresses: Words, size: int, count: int) -> list[Words]:
        """``count`` words of ``size`` bytes for each address: an array over the addresses each."""
        out = [np.zeros(len(addresses), UNSIGNED[size]) for _ in range(count)]
        for words, places, of in self._located(addresses, size, count, "read of global memory"):
            for i in range(count):
                out[i][of] = words[places + i]
        return out

    def store(self, addresses: Words, size: int, values: list[Words]) -> None:
        """The reverse."""
        for words, places, of in self._located(addresses, size, len(values), "write to global memory"):
            for i, value in enumerate(values):
                words[places + i] = value[of]


class Shared:
    """Shared memory of some blocks, and who touched it when: since the last barrier of a block, which warp."""

    def __init__(self, blocks: int, size: int) -> None:
        self._size, self._step = size, -(-size // 16) * 16  # from a block to the next
        self.data = np.full(blocks * self._step, 0xFF, np.uint8)
        size = blocks * self._step
        self.epoch = np.ones(blocks, np.int64)  # of a block: barriers that it passed
        self._wrote, self._read = np.zeros(size, np.int64), np.zeros(size, np.int64)  # in which epoch, each byte
        self._writer, self._reader = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._awaited = np.zeros(size, bool)  # a copy is under way
        self._multiplied = np.zeros(size, np.int64)  # products under way that read it
        self._seen = np.ones(size, bool)  # by products: a fence was there since it was written

    def _places(self, addresses: Words, blocks: Words, bytes_each: int, what: str) -> Words:
        _require_aligned(addresses, bytes_each, what)
        if (addresses.astype(np.uint64) + np.uint64(bytes_each) > np.uint64(self._size)).any():
            raise PtxError(f"{what}: {int(addresses.max()):#x} is outside of the block's {self._size} bytes")
        return addresses.astype(np.int64) + blocks * self._step

    def load(self, addresses: Words, size: int, count: int, blocks: Words, warps: Words) -> list[Words]:
        """As Global.load; ``blocks``, ``warps``: whose the addresses are."""
        what = "read of shared memory"
        places = self._places(addresses, blocks, size * count, what)
        touched = _bytes(places, size * count)
        epoch, warp = np.repeat(self.epoch[blocks], size * count), np.repeat(warps, size * count)
        self._refuse(self._awaited[touched], touched, what, "a copy to it is under way")
        foreign = (self._wrote[touched] == epoch) & (self._writer[touched] != warp)
        self._refuse(foreign, touched, what, "another warp wrote it, and no barrier is between")
        others = (self._read[touched] == epoch) & (self._reader[touched] != warp)
        self._reader[touched] = np.where(others, SEVERAL, warp)
        self._read[touched] = epoch
        differ = self._reader[touched] != warp  # of warps that read the same at once
        self._reader[touched[differ]] = SEVERAL
        words = self.data.view(UNSIGNED[size])
        return [words[places // size + i] for i in range(count)]

    def begin_product(self, addresses: Words, size: int, blocks: Words) -> tuple[Words, Words]:
        """A word for each address, which several warps multiply, and the bytes that must stay until it has ended."""
        what = "product of a warpgroup"
        places = self._places(addresses, blocks, size, what)
        touched = _bytes(places, size)
        self._refuse(~self._seen[touched], touched, what, "no fence is behind what wrote it")
        (words,) = self.load(addresses, size, 1, blocks, np.full(len(addresses), SEVERAL))
        np.add.at(self._multiplied, touched, 1)
        return words, touched

    def end_product(self, touched: Words) -> None:
        """It has."""
        np.subtract.at(self._multiplied, touched, 1)

    def fence(self, blocks: Words) -> None:
        """Products may read what was written to memory of these blocks."""
        self._seen.reshape(-1, self._step)[blocks] = True

    def store(self, addresses: Words, size: int, values: list[Words], blocks: Words, warps: Words) -> None:
        """As Global.store."""
        places = self._places(addresses, blocks, size * len(values), "write to shared memory")
        self._mark(places, size * len(values), blocks, warps)
        words = self.data.view(UNSIGNED[size])
        for i, value in enumerate(values):
            words[places // size + i] = value

    def await_copy(self, addresses: Words, size: int, blocks: Words) -> None:
        """A copy of ``size`` bytes to each address begins: nobody may touch them."""
        touched = _bytes(self._places(addresses, blocks, size, "copy to shared memory"), size)
        self._refuse(self._awaited[touched], touched, "copy to shared memory", "a copy to it is under way")
        self._refuse(self._multiplied[touched] > 0, touched, "copy to shared memory", "a product reads it")
        self._awaited[touched] = True

    def end_copy(self, addresses: Words, values: Words, blocks: Words, warps: Words) -> None:
        """It ends: rows of bytes."""
        size = values.shape[1]
        places = self._places(addresses, blocks, size, "copy to shared memory")
        self._awaited[_bytes(places, size)] = False
        self._mark(places, size, blocks, warps)
        self.data[places[:, None] + np.arange(size)] = values

    def _mark(self, places: Words, bytes_each: int, blocks: Words, warps: Words) -> None:
        what = "write to shared memory"
        touched = _bytes(places, bytes_each)
        epoch, warp = np.repeat(self.epoch[blocks], bytes_each), np.repeat(warps, bytes_each)
        self._refuse(self._awaited[touched], touched, what, "a copy to it is under way")
        self._refuse(self._multiplied[touched] > 0, touched, what, "a product reads it")
        self._seen[touched] = False
        for at, who, did in ((self._wrote, self._writer, "wrote"), (self._read, self._reader, "read")):
            foreign = (at[touched] == epoch) & (who[touched] != warp)
            self._refuse(foreign, touched, what, f"another warp {did} it, and no barrier is between")
        self._wrote[touched], self._writer[touched] = epoch, warp

    def _refuse(self, wrong: Words, places: Words, what: str, why: str) -> None:
        if wrong.any():
            raise PtxError(f"{what}: at {int(places[wrong][0]) % self._step:#x}, {why}")


def _bytes(places: Words, bytes_each: int) -> Words:
    """All of them, from each place on."""
    return (places[:, None] + np.arange(bytes_each)).ravel()
