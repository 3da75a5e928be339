"""What warps take of a GPU: instructions, and of its memories, beside the least that would hold as many bytes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .memory import WARP
from .parse import Block

SECTOR = 32  # bytes of global memory that go together
BANKS, WORD = 32, 4  # of shared memory, each a word in a round
Addresses = NDArray[Any]


class Traffic:
    """Counts, by kind of access: sectors of global memory that warps touch, rounds that banks of shared memory take.

    Attributes:
        instructions: that warps took, of PTX. Moves are not among them: ptxas names registers anew.
    """

    def __init__(self) -> None:
        self.instructions = 0
        self._taken: Counter[str] = Counter()
        self._least: Counter[str] = Counter()

    def of_block(self, block: Block, taken: NDArray[np.bool_]) -> None:
        """All of its instructions, by these lanes."""
        counted = sum(not instruction.opcode.startswith("mov.") for instruction in block.instructions)
        self.instructions += counted * int(taken.reshape(-1, WARP).any(1).sum())

    def of_global(self, kind: str, addresses: Addresses, size: int, lanes: Addresses) -> None:
        """``size`` bytes at each of the addresses, by one instruction of these lanes."""
        warp = (lanes // WARP).astype(np.uint64) << np.uint64(48)
        self._taken[kind] += len(np.unique(warp | addresses // np.uint64(SECTOR)))
        self._least[kind] += len(np.unique(warp | addresses)) * size / SECTOR

    def of_shared(self, kind: str, addresses: Addresses, size: int, lanes: Addresses) -> None:
        """The same. Of more than a word each, a part of a warp is served after the other."""
        parts = lanes // (WARP * WORD // max(WORD, size))
        words = addresses.astype(np.int64)[:, None] // WORD + np.arange(max(1, size // WORD))
        wanted = np.unique(np.stack([np.broadcast_to(parts[:, None], words.shape), words], -1).reshape(-1, 2), axis=0)
        _, part = np.unique(wanted[:, 0], return_inverse=True)
        of_bank = np.zeros((part.max(initial=-1) + 1, BANKS), np.int64)
        np.add.at(of_bank, (part, wanted[:, 1] % BANKS), 1)
        self._taken[kind] += int(of_bank.max(1, initial=0).sum())
        self._least[kind] += int(-(-of_bank.sum(1) // BANKS).sum())

    def ratios(self) -> dict[str, float]:
        """Of each kind that there was, how many times the least it took."""
        return {kind: self._taken[kind] / least for kind, least in self._least.items() if least}
