"""Right answers in the right order, and nothing secret sent."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import facemix.edge.messages
import facemix.edge.request
import numpy as np
import pytest
from edge_halves import CLASSES, DECOYS, ROW, WatchedHalf, check, expected, images
from facemix.edge import AsyncClient, Client, Cost
from facemix.edge.answer import Meter
from facemix.wire.names import COMPUTE_NS, DATATYPES_PROPERTY
from fake_cloud import FakeCloud, Running


def test_time_on_the_way_counts_once() -> None:
    """However many messages were under way, and less what the cloud computed, which it says with each of a batch."""
    meter = Meter(batches={10**9}, waits=[(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (1.0, 1.5)])
    cost = meter.cost(images=1, requests=1)
    assert (cost.cloud_seconds, cost.network_seconds) == (1, 3)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 8, 9, 31, 64, 67])
def test_right_answers_in_the_callers_order(count: int, half: WatchedHalf, client: Client) -> None:
    pictures = images(count)
    answer = client.classify(pictures)
    check(answer, pictures)
    assert len(answer) == count
    assert answer[0].label == answer.labels[0]
    assert [prediction.name for prediction in answer] == answer.names
    assert half.wiped


def test_scores_have_a_row_for_each_image_and_a_column_for_each_class(client: Client) -> None:
    assert client.classify(images(6)).scores.shape == (6, CLASSES)


def test_large_replies_are_unpacked_aside(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def unpack(*args: Any) -> Any:
        threads.append(threading.current_thread().name)
        return facemix.edge.messages.unpack(*args)

    monkeypatch.setattr(facemix.edge.request, "unpack", unpack)
    check(client.classify(images(8)), images(8))
    monkeypatch.setattr(facemix.edge.request, "SMALL_BYTES", 100)
    check(client.classify(images(8)), images(8))
    assert threads[0] == "facemix-client"
    assert threads[1].startswith("facemix-edge")


def test_attributes(server: Running) -> None:
    with Client(WatchedHalf(classes=None, attributes=["hat", "tie"]), server.address) as client:
        answer = client.classify(images(8))
    want = expected(images(8))
    assert answer.names is None
    assert answer.attributes is not None
    np.testing.assert_array_equal(answer.labels, want[:, 1::2] > want[:, ::2])
    for n, prediction in enumerate(answer):
        assert (prediction.label, prediction.name) == (None, None)
        assert prediction.attributes == pytest.approx(
            {name: 1 / (1 + np.exp(want[n, 2 * i] - want[n, 2 * i + 1])) for i, name in enumerate(["hat", "tie"])},
            rel=1e-3,
        )
        assert prediction.attributes == {name: values[n] for name, values in answer.attributes.items()}


@pytest.mark.parametrize("wire_dtype", ["float32", "float16", "bfloat16", "int8"])
def test_wire_dtypes(wire_dtype: str, half: WatchedHalf, server: Running) -> None:
    pictures = images(16)
    with Client(half, server.address, wire_dtype=wire_dtype) as client:
        answer = client.classify(pictures)
    # What the rounding of 1 value in 2^8, 2^11, and 127 steps leaves over 150 of them, mixed and un-mixed.
    check(answer, pictures, {"float32": 1e-4, "float16": 5e-3}.get(wire_dtype, 5e-2))
    (request,) = server.cloud.requests
    datatype = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "int8": "INT8"}[wire_dtype]
    assert [tensor.datatype for tensor in request.inputs] == [datatype] + ["FP32"] * (wire_dtype == "int8")


def test_layouts_and_read_only_images(client: Client) -> None:
    pictures = images(8)
    check(client.classify(pictures[::-1]), pictures[::-1])
    turned = np.ascontiguousarray(pictures.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    turned.flags.writeable = False
    check(client.classify(turned), pictures)


def test_cost(half: WatchedHalf, server: Running) -> None:
    with Client(half, server.address, decoys=DECOYS, message_bytes=4 * ROW) as client:
        cost = client.classify(images(9)).cost
    requests = server.cloud.requests
    assert isinstance(cost, Cost)
    assert (cost.images, cost.rows, cost.requests, cost.attempts, cost.messages) == (9, 12, 1, 1, 3)
    assert cost.bytes_up == sum(request.ByteSize() for request in requests) > 12 * ROW
    assert cost.bytes_down == sum(server.cloud.answer(request).ByteSize() for request in requests)
    assert cost.cloud_seconds == 1e-6  # one batch, by the cloud's account
    assert min(cost.edge_seconds, cost.network_seconds) > 0


def test_nothing_but_mixtures_is_sent(half: WatchedHalf, client: Client, server: Running) -> None:
    for _ in range(2):
        client.classify(images(16))
    assert len(half.copies) == len(set(half.copies)) == 2
    for request in server.cloud.requests:
        fields = {field.name for field, _ in request.ListFields()}
        assert fields == {"model_name", "model_version", "inputs", "raw_input_contents"}
        assert {field.name for field, _ in request.inputs[0].ListFields()} == {"name", "datatype", "shape"}
        wire = request.SerializeToString()
        for coeffs, order in half.copies:
            assert coeffs[:64] not in wire
            assert np.frombuffer(coeffs).astype(np.float32).tobytes()[:32] not in wire
            assert order[:32] not in wire
    assert len(set(server.cloud.digests)) == len(server.cloud.digests) == 32


def test_many_calls_at_once(half: WatchedHalf, server: Running) -> None:
    async def calls() -> None:
        async with AsyncClient(half, server.address, decoys=DECOYS) as client:
            sizes = [1, 4, 7, 12, 30]
            pictures = [images(sizes[n % 5], seed=n) for n in range(40)]
            for picture, answer in zip(pictures, await asyncio.gather(*map(client.classify, pictures)), strict=True):
                check(answer, picture)

    asyncio.run(calls())
    assert half.wiped
    assert server.cloud.described == 1  # one connection, asked once


def test_the_wire_dtype_is_what_the_server_takes(half: WatchedHalf, server: Running) -> None:
    """A server that is not ours names one datatype."""
    del server.cloud.metadata.properties[DATATYPES_PROPERTY]
    server.cloud.metadata.inputs[0].datatype = "FP16"
    with Client(half, server.address) as client:
        check(client.classify(images(8)), images(8), 5e-3)
    assert server.cloud.requests[0].inputs[0].datatype == "FP16"


def test_what_a_server_need_not_say(half: WatchedHalf, server: Running) -> None:
    cloud = server.cloud
    cloud.metadata.properties.clear()
    del cloud.metadata.versions[:]

    async def tersely(cloud: FakeCloud, number: int, request, context):  # type: ignore[no-untyped-def]
        answer = cloud.answer(request)
        answer.ClearField("parameters")
        answer.ClearField("model_version")
        return answer

    cloud.behave = tersely
    with Client(half, server.address) as client:
        answer = client.classify(images(8))
    check(answer, images(8))
    assert answer.cost.cloud_seconds == 0


def test_a_cloud_that_computes_for_less_than_no_time(cloud: FakeCloud, client: Client) -> None:
    async def backwards(cloud: FakeCloud, number: int, request: Any, context: Any) -> Any:
        answer = cloud.answer(request)
        answer.parameters[COMPUTE_NS].int64_param = -(2**63)
        return answer

    cloud.behave = backwards
    answer = client.classify(images(8))
    check(answer, images(8))
    assert answer.cost.cloud_seconds == 0
