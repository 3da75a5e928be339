"""Requests of many callers in one batch, and what they must not notice of it."""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
from cloud_server import (
    INFER,
    POISON,
    Doubler,
    answer,
    calls,
    code_of,
    message,
    repository,
    rows,
    run,
    serving,
    stub_of,
    until,
    waiting,
)
from facemix.cloud.batching import Batcher, _compute
from facemix.cloud.metrics import Metrics
from facemix.cloud.model import CloudModel
from facemix.cloud.refusal import Refusal
from facemix.cloud.repository import Repository
from facemix.partition import partition
from facemix.wire.open_inference_pb2_grpc import GRPCInferenceServiceStub


def test_what_waits_is_computed_together_and_never_split(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path), max_batch=8) as (server, channel):
            stub = stub_of(channel)
            calls = [asyncio.ensure_future(stub.ModelInfer(message(rows(1, 100))))]
            await until(model.started)
            for first in (0, 10, 20, 30):  # three rows each: two requests fit a batch of eight, three do not
                calls.append(asyncio.ensure_future(stub.ModelInfer(message(rows(3, first)))))
                await waiting(server, len(calls) - 1)
            model.gate.set()
            answers = [answer(await call) for call in calls]
        assert model.batches == [[100], [0, 1, 2, 10, 11, 12], [20, 21, 22, 30, 31, 32]]
        for result, first, count in zip(answers, (100, 0, 10, 20, 30), (1, 3, 3, 3, 3), strict=True):
            np.testing.assert_array_equal(result, 2 * rows(count, first)[..., 0, 0])

    run(scenario())


def test_a_small_request_does_not_overtake_one_that_no_longer_fits(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path), max_batch=4) as (server, channel):
            stub = stub_of(channel)
            calls = [asyncio.ensure_future(stub.ModelInfer(message(rows(1, 100))))]
            await until(model.started)
            for first, count in ((0, 3), (10, 2), (20, 1)):
                calls.append(asyncio.ensure_future(stub.ModelInfer(message(rows(count, first)))))
                await waiting(server, len(calls) - 1)
            model.gate.set()
            await asyncio.gather(*calls)
        assert model.batches == [[100], [0, 1, 2], [10, 11, 20]]

    run(scenario())


def test_a_request_larger_than_a_batch_is_computed_alone_in_slices(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        async with serving(repository([model], tmp_path), max_batch=8) as (_, channel):
            result = answer(await stub_of(channel).ModelInfer(message(rows(19))))
        assert [len(batch) for batch in model.batches] == [8, 8, 3]
        np.testing.assert_array_equal(result, 2 * rows(19)[..., 0, 0])

    run(scenario())


def test_one_bad_request_does_not_fail_the_others_of_its_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path)) as (server, channel):
            stub = stub_of(channel)
            first = asyncio.ensure_future(stub.ModelInfer(message(rows(1))))
            await until(model.started)
            calls = [asyncio.ensure_future(stub.ModelInfer(message(rows(2, n)))) for n in (10, POISON, 20)]
            await waiting(server, 3)
            model.gate.set()
            await first
            good, bad, other = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(bad, grpc.aio.AioRpcError)
        assert (bad.code(), bad.details()) == (grpc.StatusCode.INTERNAL, "inference failed: RuntimeError")
        np.testing.assert_array_equal(answer(good), 2 * rows(2, 10)[..., 0, 0])
        np.testing.assert_array_equal(answer(other), 2 * rows(2, 20)[..., 0, 0])
        assert sorted(model.batches[1]) == sorted([10, 11, 20, 21, POISON, POISON + 1])
        assert len(model.batches) == 5  # the first, the three together, and each of the three alone

    run(scenario())


def test_an_idle_server_waits_for_nothing_but_for_what_is_on_its_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        async with serving(repository([model], tmp_path), max_delay_ms=10_000) as (server, channel):
            stub = stub_of(channel)
            # The delay is longer than the deadline.
            assert await code_of(stub.ModelInfer(message(rows(1)), timeout=9)) == grpc.StatusCode.OK

            opened = channel.stream_unary(INFER)(metadata=[("opened", "without a message so far")])
            await calls(server, 1)
            waits = asyncio.ensure_future(stub.ModelInfer(message(rows(1, 5))))
            await waiting(server, 1)
            await asyncio.sleep(0.1)
            assert model.batches == [[1]]
            await opened.write(message(rows(1, 7)).SerializeToString())
            await opened.done_writing()
            await asyncio.gather(waits, opened)
        assert [sorted(batch) for batch in model.batches] == [[1], [5, 7]]

    run(scenario())


def test_models_do_not_share_batches(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, two = Doubler("one"), Doubler("two")
        one.gate.clear()
        async with serving(repository([one, two], tmp_path)) as (server, channel):
            stub = stub_of(channel)
            calls = [asyncio.ensure_future(stub.ModelInfer(message(rows(1), "one")))]
            await until(one.started)
            for first in (10, 20, 30, 40):
                name = "one" if first in (10, 30) else "two"
                calls.append(asyncio.ensure_future(stub.ModelInfer(message(rows(1, first), name))))
                await waiting(server, len(calls) - 1)
            one.gate.set()
            await asyncio.gather(*calls)
        assert (one.batches, two.batches) == ([[1], [10, 30]], [[20, 40]])

    run(scenario())


def test_work_of_callers_who_have_gone_is_not_done(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Doubler()
        model.gate.clear()
        async with serving(repository([model], tmp_path), queue_mib=1) as (server, channel):
            stub = stub_of(channel)
            first = asyncio.ensure_future(stub.ModelInfer(message(rows(1))))
            await until(model.started)
            late = stub.ModelInfer(message(rows(1, 10)), timeout=2)
            gone = stub.ModelInfer(message(rows(1, 20)))
            stays = asyncio.ensure_future(stub.ModelInfer(message(rows(1, 30))))
            await waiting(server, 3)
            gone.cancel()
            assert await code_of(late) == grpc.StatusCode.DEADLINE_EXCEEDED
            await waiting(server, 1)  # the memory of those two is free again
            model.gate.set()
            await asyncio.gather(first, stays)
            async with asyncio.timeout(5):
                await server.inference.drained()  # those two have ended here as well
        assert model.batches == [[1], [30]]

    run(scenario())


def test_no_answer_is_anothers_whoever_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        draw, codes = random.Random(0), set()

        async def caller(stub: GRPCInferenceServiceStub, number: int) -> bool:
            features = rows(draw.randint(1, 5), 10.0 * number)
            timeout = draw.choice([None, None, draw.uniform(0.001, 0.2)])
            call = stub.ModelInfer(message(features), timeout=timeout)
            if number % 4 == 0:
                asyncio.get_running_loop().call_later(draw.uniform(0, 0.1), call.cancel)
            try:
                reply = await call
            except asyncio.CancelledError:
                return False
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
                return False
            np.testing.assert_array_equal(answer(reply), 2 * features[..., 0, 0])
            return True

        async with serving(repository([Doubler()], tmp_path), max_batch=16) as (server, channel):
            answered = await asyncio.gather(*(caller(stub_of(channel), number) for number in range(400)))
            assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED}
            assert sum(answered) >= 190  # about half of them neither leave nor have a deadline
            await calls(server, 0)
            await waiting(server, 0)

    run(scenario())


def test_a_deadline_that_passed_in_the_queue_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        model, batcher = Doubler(), Batcher(8, 0.0, 1 << 20, Metrics())
        with pytest.raises(Refusal, match="the deadline passed") as caught:
            await batcher.submit(model, rows(1), 0.0)
        assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert model.batches == []
        batcher.stop()

    run(scenario())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_batch_may_end_after_the_event_loop() -> None:
    """As when the drain was too short for it: nobody waits for what comes of it, and the thread ends in peace."""
    model = Doubler()
    model.gate.clear()

    async def scenario() -> threading.Thread:
        before = set(threading.enumerate())
        batcher = Batcher(8, 0.0, 1 << 20, Metrics())
        (thread,) = set(threading.enumerate()) - before
        outcome = asyncio.ensure_future(batcher.submit(model, rows(1), time.monotonic() + 60))
        await until(model.started)
        batcher.stop()
        assert not outcome.done()
        return thread

    thread = asyncio.run(scenario())
    model.gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert model.batches == [[1]]


def test_answers_of_a_real_model_are_those_of_each_request_alone(cloud_file: Path, network: torch.nn.Module) -> None:
    async def scenario() -> None:
        sent = [torch.randn(count, 8, 8, 8) for count in (1, 2, 3, 5, 7, 1, 1, 4, 6, 2)]
        async with serving(Repository([cloud_file], CloudModel), max_batch=9) as (_, channel):
            stub = stub_of(channel)
            replies = await asyncio.gather(*(stub.ModelInfer(message(x.numpy())) for x in sent))
        middle = partition(network).cloud
        for features, reply in zip(sent, replies, strict=True):
            with torch.no_grad():
                expected = middle(features).numpy()
            np.testing.assert_allclose(answer(reply), expected, rtol=1e-4, atol=1e-5)

    run(scenario())


def test_a_model_that_drops_rows_answers_nobody() -> None:
    class Short(Doubler):
        def run(self, features: np.ndarray) -> np.ndarray:
            return super().run(features)[:-1]

    results = _compute(Short(), [rows(2), rows(3)], 8)
    assert [str(result) for result in results] == [
        f"the model must answer with {count} rows, got {count - 1}" for count in (2, 3)
    ]


def test_who_finds_the_queue_full_is_told_how_long_it_takes_to_empty() -> None:
    async def scenario() -> None:
        batcher = Batcher(8, 0.0, 64, Metrics())
        model = Doubler()
        model.gate.clear()
        batcher._seconds_per_byte = 0.05
        waits = asyncio.ensure_future(batcher.submit(model, rows(4), math.inf))
        await until(model.started)
        with pytest.raises(Refusal) as caught:
            batcher.check_room(1)
        assert caught.value.retry_ms == 3200  # 64 bytes
        model.gate.set()
        await waits
        batcher.stop()

    asyncio.run(scenario())


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_threads")
def test_denormal_numbers_are_zero_to_every_thread_that_computes() -> None:
    """They would take so long that one message of them could hold up everybody for a minute."""

    class Halver(Doubler):
        def run(self, features: np.ndarray) -> np.ndarray:
            return (torch.from_numpy(features) * 0.5).numpy()

    async def scenario() -> None:
        batcher = Batcher(1 << 20, 0.0, 1 << 30, Metrics())
        for count in (1, 1 << 18):  # many are spread over threads
            tiny, small = np.full((count, 4, 1, 1), 1e-40, np.float32), np.full((count, 4, 1, 1), 1.5e-38, np.float32)
            for features in (tiny, small):
                assert not (await batcher.submit(Halver(), features, math.inf)).outputs.any()
            assert Halver().run(small).all()  # what is not the batcher's thread is left alone
        batcher.stop()

    asyncio.run(scenario())
