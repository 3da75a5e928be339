"""Slots for messages: what happens to those who hold one and send nothing."""

from __future__ import annotations

import asyncio
import time

import pytest
from facemix.cloud.receiving import Receiving


async def hold(receiving: Receiving, seconds: float) -> None:
    async with receiving.slot():
        await asyncio.sleep(seconds)


async def test_no_more_at_a_time_than_there_are_slots() -> None:
    receiving, most, now = Receiving(3, 60, 60), 0, 0

    async def one() -> None:
        nonlocal most, now
        async with receiving.slot():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert (most, now) == (3, 0)


async def test_who_takes_too_long_loses_the_slot() -> None:
    with pytest.raises(TimeoutError):
        await hold(Receiving(1, 0.02, 0.01), 60)


async def test_who_comes_as_the_time_of_another_runs_out_is_next() -> None:
    receiving, newcomers = Receiving(1, 0.05, 5), []
    holder = asyncio.create_task(hold(receiving, 60))
    await asyncio.sleep(0)
    (patience,) = receiving._unhurried
    time_is_up = patience.when()
    assert time_is_up is not None
    asyncio.get_running_loop().call_at(
        time_is_up - 0.001, lambda: newcomers.append(asyncio.create_task(hold(receiving, 0)))
    )
    time.sleep(0.1)  # now both are due
    with pytest.raises(TimeoutError):
        await holder
    await newcomers[0]


async def test_a_message_that_is_there_is_not_hurried() -> None:
    receiving = Receiving(1, 0.02, 0.01)
    async with receiving.slot() as received:
        received()
        waiting = asyncio.create_task(hold(receiving, 0))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    await waiting


async def test_who_holds_back_a_message_is_hurried_where_others_wait() -> None:
    receiving = Receiving(2, 60, 0.05)
    idle = [asyncio.create_task(hold(receiving, 60)) for _ in range(2)]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in idle)  # nobody waits, so they may
    await asyncio.gather(*(hold(receiving, 0) for _ in range(2)))
    outcomes = await asyncio.gather(*idle, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 2


async def test_one_that_waits_hurries_one_only() -> None:
    receiving = Receiving(2, 60, 0.05)
    first, second = (asyncio.create_task(hold(receiving, 60)) for _ in range(2))
    await asyncio.sleep(0)
    await hold(receiving, 0)
    assert isinstance(first.exception(), TimeoutError)
    assert not second.done()
    second.cancel()


async def test_many_that_hold_back_do_not_keep_others_out() -> None:
    receiving = Receiving(4, 60, 0.02)
    idle = [asyncio.create_task(hold(receiving, 60)) for _ in range(40)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):  # ten times 60 s if they were not hurried
        await hold(receiving, 0)
    for task in idle:
        task.cancel()
    await asyncio.gather(*idle, return_exceptions=True)
