"""Servers that say what they must not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edge_halves import ROW, WatchedHalf, check, images
from facemix.edge import Client, CloudError, CloudMismatch, CloudRefused, CloudReplyError, CloudUnreachable
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import NETWORK
from fake_cloud import Behaviour, Context, FakeCloud, Running

PICTURES = images(32)


def wrong(change: Callable[[pb.ModelInferResponse], object]) -> Behaviour:
    """The third answer is changed."""

    async def behave(cloud: FakeCloud, number: int, request: Any, context: Context) -> pb.ModelInferResponse:
        answer = cloud.answer(request)
        if number == 2:
            change(answer)
        return answer

    return behave


def drop_a_row(answer: pb.ModelInferResponse) -> None:
    answer.outputs[0].shape[0] -= 1
    answer.raw_output_contents[0] = answer.raw_output_contents[0][: -7 * 4]


def not_a_number(answer: pb.ModelInferResponse) -> None:
    answer.raw_output_contents[0] = np.full(8 * 7, np.nan, np.float32).tobytes()


def huge(answer: pb.ModelInferResponse) -> None:
    signs = np.where(np.arange(8 * 7) % 2, 1, -1)
    answer.raw_output_contents[0] = (signs * np.float32(3.4e38)).astype(np.float32).tobytes()


def many_outputs(answer: pb.ModelInferResponse) -> None:
    answer.ClearField("raw_output_contents")
    answer.outputs.extend([pb.ModelInferResponse.InferOutputTensor()] * 8200)  # of two bytes each


def named(name: str) -> Callable[[pb.ModelInferResponse], None]:
    def change(answer: pb.ModelInferResponse) -> None:
        answer.parameters[NETWORK].string_param = name

    return change


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (drop_a_row, CloudReplyError, r"output mixed_outputs must have shape \[8, 7\], got \[7, 7\]"),
        (not_a_number, CloudReplyError, "must be finite, got 56 values that are not"),
        (huge, CloudReplyError, r"must suit .* MixedRequest.classify: reply must leave scores finite, got \d+ values"),
        (lambda answer: answer.ClearField("outputs"), CloudReplyError, "got 0 tensors"),
        (many_outputs, CloudReplyError, "must have 16384 bytes at most besides raw contents, got more"),
        (lambda answer: answer.raw_output_contents.append(bytes(16500)), CloudReplyError,
         "to 8 rows it must have 16608 bytes at most, got 16"),
        (lambda answer: answer.raw_output_contents.append(bytes(20000)), CloudRefused, "message larger than max"),
        (named("another"), CloudMismatch, "the network that answers must be 0123456789abcdef, got 'another'"),
        (lambda answer: answer.ClearField("parameters"), CloudMismatch, "answered by one network, got several"),
        (lambda answer: setattr(answer, "model_name", "big"), CloudMismatch, "the model that answers must be small"),
        (lambda answer: setattr(answer, "model_version", "4"), CloudMismatch, "the version that answers must be 3"),
    ],
)  # fmt: skip
def test_wrong_answers(
    change: Callable[[pb.ModelInferResponse], object],
    error: type[CloudError],
    text: str,
    half: WatchedHalf,
    server: Running,
) -> None:
    server.cloud.behave = wrong(change)
    with Client(half, server.address, message_bytes=8 * ROW) as client:
        with pytest.raises(error, match=text):
            client.classify(PICTURES)
        assert len(half.keys) == 1
        check(client.classify(PICTURES), PICTURES)  # the next one is well again


def outputs(*shape: int) -> Callable[[pb.ModelMetadataResponse], None]:
    def change(metadata: pb.ModelMetadataResponse) -> None:
        metadata.outputs[0].shape[:] = shape

    return change


def describe(change: Callable[[pb.ModelMetadataResponse], object], text: str, error: type[CloudError]) -> Any:
    return pytest.param(change, text, error, id=text[:30])


@pytest.mark.parametrize(
    ("change", "text", "error"),
    [
        describe(lambda m: m.properties.update({NETWORK: "x"}), "must be of network 0123", CloudMismatch),
        describe(lambda m: m.versions.__setitem__(0, "7"), "must have version 3, got '7'", CloudMismatch),
        describe(lambda m: m.inputs[0].shape.__setitem__(1, 6), r"must take .*, got \[6, 6, 5\]", CloudMismatch),
        describe(lambda m: m.properties.update({"datatypes": "FP16"}), "must take FP32, got 'FP16'", CloudMismatch),
        describe(lambda m: setattr(m.inputs[0], "name", "x"), "must have mixed_features, got 'x'", CloudReplyError),
        describe(lambda m: m.ClearField("outputs"), "must have mixed_outputs, got none", CloudReplyError),
        describe(outputs(-1, 6), r"must answer with outputs of shape \[7\], got \[6\]", CloudMismatch),
        describe(outputs(-1, -1), r"\[7\], got \[-1\]", CloudMismatch),
        describe(outputs(), r"\[7\], got \[\]", CloudMismatch),
        describe(outputs(-1, *[1] * 100, 7), r"\[7\], got \[1(, 1){15}\]", CloudMismatch),
        describe(outputs(-1, 1 << 28), r"\[7\], got \[268435456\]", CloudMismatch),
        describe(lambda m: m.versions.extend([""] * 8200), "must describe the model in few words", CloudReplyError),
    ],
)  # fmt: skip
def test_servers_of_something_else(
    change: Callable[[Any], object], text: str, error: type[CloudError], half: WatchedHalf, server: Running
) -> None:
    """Nothing is mixed for them."""
    change(server.cloud.metadata)
    with Client(half, server.address, wire_dtype="float32") as client, pytest.raises(error, match=text):
        client.classify(PICTURES)
    assert not half.keys
    assert not server.cloud.requests


def test_an_unknown_version(server: Running) -> None:
    with (
        Client(WatchedHalf(version=9), server.address) as client,
        pytest.raises(CloudRefused, match=r"refused \(NOT_FOUND\): 'no such model'"),
    ):
        client.classify(PICTURES)


def test_a_server_of_another_protocol() -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        with (
            Client(WatchedHalf(), f"127.0.0.1:{listener.getsockname()[1]}", attempts=1) as client,
            pytest.raises(CloudUnreachable),
        ):
            client.classify(PICTURES)
