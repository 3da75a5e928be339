"""Steps the threads of a launch through a kernel, some blocks at a time."""

from __future__ import annotations

from functools import cache
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import arithmetic
from .memory import UNSIGNED, WARP, Global, PtxError, Shared
from .parse import Instruction, Kernel
from .tensor_cores import fragments, multiplied, rows_of, shuffled
from .traffic import Traffic
from .translate import Translation, Translator
from .warpgroups import ROWS, WARPGROUP, element_bytes, left_of, numbers, places, sums_of, words_of

SHARED_MEMORY = 227 << 10  # bytes that a block may ask for on sm_90 (CUDA programming guide)
STATIC_SHARED = 48 << 10
LANES = 1024  # that step together, at most, where a block has no more
UNKNOWN = 0x7FFFFFFF  # a NaN: sums of products that are under way
Lanes = Any  # True for all, or an array of bools
_FUNCTIONS = {name: f for name, f in vars(arithmetic).items() if callable(f)} | {
    "np": np, "multiplied": multiplied, "shuffled": shuffled,
}  # fmt: skip
_DONE = 1 << 30


def launch(
    kernel: Kernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    shared: int,
    parameters: bytes,
    memory: Global,
    traffic: Traffic | None = None,
) -> None:
    """Runs all blocks; ``shared``: bytes of dynamic shared memory a block; ``parameters`` as they lie in their space.
    ``traffic`` counts what accesses take.

    Raises PtxError for what a kernel must not do.
    """
    threads = block[0] * block[1] * block[2]
    size = kernel.static_shared + shared
    if not 0 < threads <= 1024:
        raise PtxError(f"{kernel.name}: a block of {threads} threads")
    if kernel.static_shared > STATIC_SHARED or size > SHARED_MEMORY:
        raise PtxError(f"{kernel.name}: {size} bytes of shared memory, {kernel.static_shared} of them static")
    blocks, at_once = grid[0] * grid[1] * grid[2], max(1, LANES // threads)
    for first in range(0, blocks, at_once):
        numbers = np.arange(first, min(blocks, first + at_once))
        with np.errstate(all="ignore"):
            _Blocks(kernel, grid, block, numbers, size, parameters, memory, traffic).run()


class _Blocks:
    """Some blocks of a launch, all their threads side by side."""

    def __init__(
        self,
        kernel: Kernel,
        grid: Any,
        block: Any,
        numbers: NDArray[Any],
        shared: int,
        parameters: Any,
        memory: Global,
        traffic: Traffic | None,
    ) -> None:
        self._kernel, self._global, self._parameters = kernel, memory, np.frombuffer(parameters, np.uint8)
        self._traffic = traffic
        threads = block[0] * block[1] * block[2]
        self._lanes = lanes = len(numbers) * -(-threads // WARP) * WARP
        self._shared = Shared(len(numbers), shared)
        within = np.tile(np.arange(lanes // len(numbers)), len(numbers))
        self._block = np.repeat(np.arange(len(numbers)), lanes // len(numbers))
        self._warp = np.arange(lanes) // WARP
        self._local = np.zeros((lanes, max((a + s for a, s in kernel.local.values()), default=0)), np.uint8)
        self._begun = np.zeros(lanes, np.int64)  # groups of copies of a lane
        self._copies: list[tuple[Any, ...]] = []
        self._products_begun = np.zeros(lanes, np.int64)  # groups of them
        self._products: list[tuple[Any, ...]] = []
        self._pc = np.where(within < threads, 0, _DONE)
        self._waits = np.zeros(lanes, np.int8)  # 1: for its warp, 2: for its block
        self._registers = {
            register: np.zeros(lanes, bool if width == 1 else f"u{width // 8}")
            for register, width in kernel.registers.items()
        }
        number = np.repeat(numbers, lanes // len(numbers))
        special: dict[str, Any] = {"laneid": (within % WARP).astype("u4"), "warpid": (within // WARP).astype("u4")}
        for axis, (t, b) in enumerate(zip(_along(within, block), _along(number, grid), strict=True)):
            special |= {f"tid_{'xyz'[axis]}": t.astype("u4"), f"ctaid_{'xyz'[axis]}": b.astype("u4")}
            special |= {f"ntid_{'xyz'[axis]}": np.uint32(block[axis]), f"nctaid_{'xyz'[axis]}": np.uint32(grid[axis])}
        self._environment = _FUNCTIONS | special | {
            "lanes": lanes, "lanewise": self._lanewise, "whole_warps": self._require_whole_warps,
            "load_global": self._load_global, "store_global": self._store_global,
            "load_shared": self._load_shared, "store_shared": self._store_shared,
            "load_local": self._load_local, "store_local": self._store_local, "load_param": self._load_param,
            "load_matrices": self._load_matrices, "copy": self._copy, "commit_copies": self._commit_copies,
            "wait_for_copies": self._wait_for_copies, "store_matrices": self._store_matrices,
            "whole_warpgroups": self._require_whole_warpgroups, "fence": self._fence, "multiply": self._multiply,
            "commit_products": self._commit_products, "wait_for_products": self._wait_for_products,
        }  # fmt: skip
        self._functions: dict[int, Any] = {}

    # --- control -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        while True:
            ready = (self._waits == 0) & (self._pc < _DONE)
            if ready.any():
                at = int(self._pc[ready].min())  # so that those who went another way meet again
                self._step(at, ready & (self._pc == at))
            elif self._waits.any():
                self._release()
            elif self._copies or self._products:
                what = "copies" if self._copies else "products"
                raise PtxError(f"{self._kernel.name}: ends with {what} under way")
            else:
                return

    def _step(self, at: int, taken: NDArray[Any]) -> None:
        if at >= len(self._kernel.blocks):
            raise PtxError(f"{self._kernel.name}: ran past its end")
        if at not in self._functions:
            self._functions[at] = self._defined(at)
        if self._traffic:
            self._traffic.of_block(self._kernel.blocks[at], taken)
        run, end = self._functions[at]
        run(True if taken.all() else taken)
        self._pc[taken] = at + 1
        if end is None:
            return
        going = taken
        if end.predicate:
            going = taken & (self._registers[end.predicate] ^ end.negated)
        kind = end.opcode.split(".")
        if kind[0] == "bra":
            self._pc[going] = self._kernel.labels[end.operands[0]]
        elif kind[0] in ("ret", "exit"):
            self._pc[going] = _DONE
        elif kind[:2] == ["bar", "warp"] or (kind[1] == "sync" and end.operands == ("0",)):
            self._waits[going] = 1 if kind[1] == "warp" else 2
        else:
            raise PtxError(f"{self._kernel.name}: cannot run {end.opcode} {', '.join(end.operands)}")

    def _defined(self, at: int) -> tuple[Any, Instruction | None]:
        code, translation = _compiled(self._kernel, at)
        for name, (register, kind) in translation.views.items():
            self._environment.setdefault(name, self._registers[register].view(kind))
        exec(code, self._environment)
        return self._environment["run"], translation.end

    def _release(self) -> None:
        """Lets those go on for whom all of their warp, or block, are there."""
        gone = self._pc >= _DONE
        for wait, group in ((1, self._warp), (2, self._block)):
            missing = np.zeros(group.max() + 1, bool)
            missing[group[(self._waits != wait) & ~gone]] = True
            free = (self._waits == wait) & ~missing[group]
            if free.any():
                groups = np.unique(group[free])
                if wait == 2:
                    if len(set(zip(group[free], self._pc[free], strict=True))) > len(groups):
                        raise PtxError(f"{self._kernel.name}: threads of a block wait at different barriers")
                    self._shared.epoch[groups] += 1
                self._waits[free] = 0
                return
        raise PtxError(f"{self._kernel.name}: a barrier that some threads never reach")

    # --- lanes -------------------------------------------------------------------------------------------------------

    def _lanewise(self, value: Any) -> NDArray[Any]:
        array = np.asarray(value)
        return array if array.ndim else np.full(self._lanes, array)

    def _of(self, q: Lanes) -> NDArray[Any]:
        return np.arange(self._lanes) if q is True else np.flatnonzero(q)

    def _require_whole_warps(self, q: Lanes) -> None:
        if q is not True and (q.reshape(-1, WARP).any(1) != q.reshape(-1, WARP).all(1)).any():
            raise PtxError(f"{self._kernel.name}: an instruction of a whole warp, by some of its threads")

    def _require_whole_warpgroups(self, q: Lanes) -> None:
        threads = self._lanes // (self._block[-1] + 1)
        some = q is not True and (q.reshape(-1, WARP * 4).any(1) != q.reshape(-1, WARP * 4).all(1)).any()
        if threads % WARPGROUP or some:
            raise PtxError(f"{self._kernel.name}: an instruction of a whole warpgroup, by some of its threads")

    def _spread(self, lanes: NDArray[Any], words: list[NDArray[Any]]) -> list[NDArray[Any]]:
        if len(lanes) == self._lanes:
            return words
        out = [np.zeros(self._lanes, word.dtype) for word in words]
        for all_lanes, word in zip(out, words, strict=True):
            all_lanes[lanes] = word
        return out

    # --- memory ------------------------------------------------------------------------------------------------------

    def _load_global(self, addresses: NDArray[Any], size: int, count: int, q: Lanes) -> list[NDArray[Any]]:
        lanes = self._of(q)
        if self._traffic:
            self._traffic.of_global("global reads", addresses[lanes], size * count, lanes)
        return self._spread(lanes, self._global.load(addresses[lanes], size, count))

    def _store_global(self, addresses: NDArray[Any], size: int, values: list[NDArray[Any]], q: Lanes) -> None:
        lanes = self._of(q)
        if self._traffic:
            self._traffic.of_global("global writes", addresses[lanes], size * len(values), lanes)
        self._global.store(addresses[lanes], size, [value[lanes].astype(UNSIGNED[size]) for value in values])

    def _load_shared(self, addresses: NDArray[Any], size: int, count: int, q: Lanes) -> list[NDArray[Any]]:
        lanes = self._of(q)
        if self._traffic:
            self._traffic.of_shared("shared reads", addresses[lanes], size * count, lanes)
        words = self._shared.load(addresses[lanes], size, count, self._block[lanes], self._warp[lanes])
        return self._spread(lanes, words)

    def _store_shared(self, addresses: NDArray[Any], size: int, values: list[NDArray[Any]], q: Lanes) -> None:
        lanes = self._of(q)
        if self._traffic:
            self._traffic.of_shared("shared writes", addresses[lanes], size * len(values), lanes)
        words = [value[lanes].astype(UNSIGNED[size]) for value in values]
        self._shared.store(addresses[lanes], size, words, self._block[lanes], self._warp[lanes])

    def _load_local(self, addresses: NDArray[Any], size: int, count: int, q: Lanes) -> list[NDArray[Any]]:
        lanes = self._of(q)
        places = addresses[lanes].astype(np.int64)[:, None] + np.arange(size * count)
        words = self._local[lanes[:, None], places].view(UNSIGNED[size])
        return self._spread(lanes, [np.ascontiguousarray(words[:, i]) for i in range(count)])

    def _store_local(self, addresses: NDArray[Any], size: int, values: list[NDArray[Any]], q: Lanes) -> None:
        lanes = self._of(q)
        places = addresses[lanes].astype(np.int64)[:, None] + np.arange(size * len(values))
        words = np.stack([value[lanes].astype(UNSIGNED[size]) for value in values], 1)
        self._local[lanes[:, None], places] = words.view(np.uint8)

    def _load_param(self, addresses: NDArray[Any], size: int, count: int, q: Lanes) -> list[NDArray[Any]]:
        lanes = self._of(q)
        places = addresses[lanes].astype(np.int64)[:, None] + np.arange(size * count)
        words = self._parameters[places].view(UNSIGNED[size])
        return self._spread(lanes, [np.ascontiguousarray(words[:, i]) for i in range(count)])

    def _load_matrices(self, addresses: NDArray[Any], count: int, transposed: bool, q: Lanes) -> list[NDArray[Any]]:
        """ldmatrix: lanes 8 * i on say where the rows of matrix i are."""
        lanes = self._of(q).reshape(-1, WARP)
        out = []
        for i in range(count):
            rows = lanes[:, 8 * i : 8 * i + 8].ravel()
            if self._traffic:
                self._traffic.of_shared("shared reads", addresses[rows], 16, rows)
            words = self._shared.load(addresses[rows], 4, 4, self._block[rows], self._warp[rows])
            halves = np.stack(words, 1).view(np.uint16).reshape(-1, 8, 8)
            out.append(fragments(halves, transposed).ravel())
        return self._spread(lanes.ravel(), out)

    def _store_matrices(self, addresses: NDArray[Any], words: list[NDArray[Any]], transposed: bool, q: Lanes) -> None:
        """stmatrix: the reverse."""
        lanes = self._of(q).reshape(-1, WARP)
        for i, word in enumerate(words):
            rows = lanes[:, 8 * i : 8 * i + 8].ravel()
            halves = rows_of(word[lanes], transposed).reshape(-1, 8)
            if self._traffic:
                self._traffic.of_shared("shared writes", addresses[rows], 16, rows)
            whole = list(np.ascontiguousarray(halves.view(np.uint32).T))
            self._shared.store(addresses[rows], 4, whole, self._block[rows], self._warp[rows])

    # --- products of warpgroups, which run beside them ---------------------------------------------------------------

    def _fence(self, q: Lanes) -> None:
        self._shared.fence(np.unique(self._block[self._of(q)]))

    def _multiply(self, of: Any, to: list[str], left: Any, right: Any, kept: NDArray[Any], q: Lanes) -> None:
        """``left``: words in registers or a descriptor, ``right``: a descriptor; each with whether it is turned."""
        columns, depth, kind = of
        self._require_whole_warpgroups(q)
        lanes = self._of(q)
        used: list[NDArray[Any]] = []

        def matrix(descriptors: NDArray[Any], rows: int, turned: bool) -> NDArray[np.float64]:
            """[warpgroup, rows, depth] of what lies in shared memory."""
            each = descriptors[lanes].reshape(-1, WARPGROUP)
            if (each != each[:, :1]).any():
                raise PtxError(f"{self._kernel.name}: threads of a warpgroup have different descriptors")
            size, out = element_bytes(kind), []
            for descriptor, block in zip(each[:, 0], self._block[lanes[::WARPGROUP]], strict=True):
                at = places(int(descriptor), rows, depth, size, turned)
                words, touched = self._shared.begin_product(at.ravel(), size, np.full(at.size, block))
                used.append(touched)
                out.append(numbers(words, kind).reshape(at.shape))
            return np.stack(out)

        (words, turned), (descriptor, right_turned) = left, right
        in_registers = len(words) > 1
        a = left_of([word[lanes] for word in words], kind) if in_registers else matrix(words[0], ROWS, turned)
        sums = a @ matrix(descriptor, columns, right_turned).transpose(0, 2, 1)
        of_group = kept[lanes[::WARPGROUP]]
        if of_group.any():
            sums += np.where(of_group[:, None, None], sums_of(self._sums(to, lanes)), 0)
        self._products.append((lanes, to, words_of(sums), used, self._products_begun[lanes[0]]))
        for register in to:
            self._registers[register][lanes] = UNKNOWN

    def _sums(self, registers: list[str], lanes: NDArray[Any]) -> list[NDArray[Any]]:
        """As they will be when the products that are under way have ended."""
        for of, to, words, *_ in reversed(self._products):
            if to == registers and np.array_equal(of, lanes):
                return words
        return [self._registers[register][lanes] for register in registers]

    def _commit_products(self, q: Lanes) -> None:
        self._products_begun[self._of(q)] += 1

    def _wait_for_products(self, under_way: int, q: Lanes) -> None:
        waiting = np.zeros(self._lanes, bool)
        waiting[self._of(q)] = True
        rest = []
        for product in self._products:
            lanes, to, words, used, group = product
            if waiting[lanes[0]] and group < self._products_begun[lanes[0]] - under_way:
                for register, word in zip(to, words, strict=True):
                    self._registers[register][lanes] = word
                for touched in used:
                    self._shared.end_product(touched)
            else:
                rest.append(product)
        self._products = rest

    # --- copies to shared memory that run beside the warp ------------------------------------------------------------

    def _copy(self, to: NDArray[Any], source: NDArray[Any], size: int, read: NDArray[Any], q: Lanes) -> None:
        lanes = self._of(q)
        if not len(lanes):
            return
        values = np.zeros((len(lanes), size), np.uint8)
        real = read[lanes] > 0
        if not np.isin(read[lanes], (0, size)).all():
            raise PtxError(f"{self._kernel.name}: cp.async of a part of its bytes")
        if real.any():
            word = min(size, 8)
            words = self._global.load(source[lanes[real]], word, size // word)
            values[real] = np.stack(words, 1).view(np.uint8)
            if self._traffic:
                self._traffic.of_global("global reads", source[lanes[real]], size, lanes[real])
        if self._traffic:
            self._traffic.of_shared("copies to shared", to[lanes], size, lanes)
        if size == 16 and (source[lanes[real]] % 16).any():
            raise PtxError("copy to shared memory: 16 bytes from an address that is not aligned to them")
        self._shared.await_copy(to[lanes], size, self._block[lanes])
        self._copies.append((lanes, to[lanes], values, self._begun[lanes].copy()))

    def _commit_copies(self, q: Lanes) -> None:
        self._begun[self._of(q)] += 1

    def _wait_for_copies(self, under_way: int, q: Lanes) -> None:
        waiting = np.zeros(self._lanes, bool)
        waiting[self._of(q)] = True
        rest = []
        for lanes, to, values, group in self._copies:
            ends = waiting[lanes] & (group < self._begun[lanes] - under_way)
            if ends.any():
                self._shared.end_copy(to[ends], values[ends], self._block[lanes[ends]], self._warp[lanes[ends]])
            if not ends.all():
                rest.append((lanes[~ends], to[~ends], values[~ends], group[~ends]))
        self._copies = rest


def _along(number: NDArray[Any], sizes: tuple[int, int, int]) -> tuple[NDArray[Any], ...]:
    return number % sizes[0], number // sizes[0] % sizes[1], number // sizes[0] // sizes[1]


@cache
def _compiled(kernel: Kernel, at: int) -> tuple[CodeType, Translation]:
    """Block ``at`` of the kernel, translated once."""
    translation = _translator(kernel).block(at)
    return compile(translation.source, f"{kernel.name}, block {at}", "exec"), translation


@cache
def _translator(kernel: Kernel) -> Translator:
    return Translator(kernel)
