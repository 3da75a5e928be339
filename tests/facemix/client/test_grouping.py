"""Which images share a request, and how much work is let in."""

from __future__ import annotations

import asyncio

import facemix.edge.grouping
import numpy as np
import pytest
from edge_halves import IMAGE, images
from facemix.edge.answer import Meter
from facemix.edge.budget import Budget
from facemix.edge.grouping import Decoys, Remembered, compose
from facemix.edge.messages import cut, row_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray


@settings(max_examples=60, deadline=None, database=None)
@given(
    different=st.integers(1, 40),
    repeats=st.lists(st.integers(0, 39), max_size=20),
    group_size=st.integers(2, 9),
    request_groups=st.integers(1, 5),
)
def test_compose(different: int, repeats: list[int], group_size: int, request_groups: int) -> None:
    pictures = images(different)[[*range(different), *(r % different for r in repeats)]]
    decoys = Decoys(np.concatenate((images(10, seed=5), pictures[:2])), IMAGE)
    batches, stand_ins = compose(pictures, decoys, group_size, request_groups)
    rows = [row for batch in batches for row in batch.rows]
    assert sorted(rows) == sorted(set(stand_ins.tolist()))  # each goes out once
    np.testing.assert_array_equal(pictures[stand_ins], pictures)
    sizes = [len(batch) for batch in batches]
    assert all(size % group_size == 0 and 0 < size <= request_groups * group_size for size in sizes)
    assert max(sizes) - min(sizes) <= group_size
    assert sum(sizes) - len(rows) == -len(rows) % group_size
    everything = np.concatenate([batch.gather(pictures, decoys) for batch in batches])
    assert len(np.unique(everything, axis=0)) == len(everything)


def test_groups_and_decoys_follow_from_the_images() -> None:
    """Not from their order, and not from when or how often somebody asks."""
    pictures, decoys = images(20), Decoys(images(30, seed=5), IMAGE)
    others = np.random.default_rng(1).permutation(20)

    def together(shown: NDArray[np.uint8]) -> list[set[bytes]]:
        batches, _ = compose(shown, decoys, 8, 1)
        return [{image.tobytes() for image in batch.gather(shown, decoys)} for batch in batches]

    assert together(pictures) == together(pictures[others])
    assert together(pictures[:19])[-1] - together(pictures)[-1]


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 100])
@pytest.mark.parametrize("most", [1, 3, 64, 1000])
def test_messages_cover_the_rows_evenly(rows: int, most: int) -> None:
    size = row_bytes((5, 6, 5), "FP32")
    assert size == 600
    parts = cut(rows, size, most * size + size - 1)
    assert [row for part in parts for row in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-rows // most)


def test_int8_rows_carry_their_scales() -> None:
    assert row_bytes((5, 6, 5), "INT8") == 150 + 5 * 4
    assert row_bytes((5, 6, 5), "BF16") == 300


def test_work_is_let_in_by_turns_while_there_is_room() -> None:
    budget, order = Budget(4), []

    async def work(name: str, amount: int, ends: asyncio.Event) -> None:
        async with budget.inside(amount):
            order.append(name)
            await ends.wait()

    async def run() -> None:
        ends = {name: asyncio.Event() for name in "abcd"}
        tasks = [asyncio.create_task(work(n, a, ends[n])) for n, a in (("a", 3), ("b", 4), ("c", 1), ("d", 1))]
        await asyncio.sleep(0.01)
        assert order == ["a", "b"]  # 3 left room for one more, of any size
        ends["a"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b"]  # 4 leave none
        tasks[2].cancel()  # who waits may go
        ends["b"].set()
        await asyncio.sleep(0.01)
        assert order == ["a", "b", "d"]
        ends["d"].set()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


def test_waiting_at_the_same_time_counts_once() -> None:
    meter = Meter(waits=[(5.0, 7.0), (1.0, 3.0), (2.0, 4.0), (2.5, 2.6)], batches={10**9, 5 * 10**8})
    cost = meter.cost(images=1, requests=1)
    assert (cost.cloud_seconds, cost.network_seconds) == (1.5, 3.5)
    assert Meter().cost(1, 1).network_seconds == 0


def test_decoys_that_repeat_are_one() -> None:
    pictures = images(3, seed=5)
    decoys = Decoys(pictures[[0, 0, 1, 2, 1]], IMAGE)
    assert len(decoys) == 3
    assert len(np.unique(decoys.images[decoys.beside((), 3)], axis=0)) == 3


def test_the_last_images_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemix.edge.grouping, "REMEMBERED", 3)
    remembered = Remembered({bytes([n]): n for n in range(5)})
    remembered.forget()
    assert list(remembered.values()) == [2, 3, 4]
    remembered.forget()
    assert len(remembered) == 3
