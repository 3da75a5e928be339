"""The edge: right answers through a real cloud, and nothing secret on the wire or left in memory."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from facemix.data import Faces, normalise
from facemix.edge import CloudClient, CloudRefused, CloudReplyError, CloudUnreachable, Edge
from facemix.edge.transport import Reply
from facemix.models import build
from facemix.partition import partition
from facemix.wire import open_inference_pb2 as pb
from numpy.typing import NDArray
from torch import Tensor, nn

import facemix_ops as fo

GROUP = 8


class Tap(CloudClient):
    """A client that keeps the requests and the answers of `ModelInfer`."""

    requests: list[pb.ModelInferRequest]
    responses: list[pb.ModelInferResponse]

    def _call(self, method, request):  # type: ignore[no-untyped-def]
        response = super()._call(method, request)
        if isinstance(request, pb.ModelInferRequest):
            self.__dict__.setdefault("requests", []).append(request)
            self.__dict__.setdefault("responses", []).append(response)
        return response


@pytest.fixture
def client(cloud: str) -> Iterator[Tap]:
    with Tap(cloud, "middle") as client:
        yield client


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> list[tuple[fo.MixKey, Tensor, Tensor]]:
    """Every key that is sampled, with copies of its coefficients and its order."""
    sampled: list[tuple[fo.MixKey, Tensor, Tensor]] = []
    sample = fo.MixKey.sample

    def spy(*args: object, **kwargs: object) -> fo.MixKey:
        assert "generator" not in kwargs  # from the operating system
        key = sample(*args, **kwargs)
        sampled.append((key, key.coeffs.clone(), key.order.clone()))
        return key

    monkeypatch.setattr(fo.MixKey, "sample", spy)
    return sampled


def images(faces: Faces, count: int) -> Tensor:
    return normalise(faces.images[:count])


def test_equals_the_split_in_this_process(client: Tap, network: nn.Module, faces: Faces, keys: list) -> None:
    """Plain PyTorch, with the key that was used: x -> first -> A -> cloud -> A^T -> last."""
    batch = images(faces, 24)
    parts = partition(network)
    edge = Edge(parts, client, group_size=GROUP)
    grouped: list[Tensor] = []
    fill = edge._fill
    edge._fill = lambda x: grouped.append(fill(x)) or grouped[-1]  # type: ignore[method-assign,func-returns-value]
    answer = edge.classify(batch)
    ((rows, places),) = grouped
    ((_, coeffs, order),) = keys
    with torch.no_grad():
        features = parts.edge_first(rows)
        mixed = torch.einsum("gij,gjf->gif", coeffs.float(), features.view(3, GROUP, -1)).view_as(features)
        sent = torch.empty_like(mixed)
        sent[order] = mixed
        returned = parts.cloud(sent)[order]
        unmixed = torch.einsum("gij,gif->gjf", coeffs.float(), returned.view(3, GROUP, -1)).view_as(returned)
        expected = parts.edge_last(unmixed)[places]
    torch.testing.assert_close(answer.scores, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(rows[places], batch)


def test_report(client: Tap, network: nn.Module, faces: Faces) -> None:
    answer = Edge(partition(network), client, group_size=GROUP).classify(images(faces, 16))
    assert answer.scores.shape == (16, 6)
    assert answer.rows_sent == 16
    assert answer.bytes_up == client.requests[0].ByteSize() >= 16 * 8 * 8 * 8 * 4
    assert answer.bytes_down == client.responses[0].ByteSize() >= 16 * 64 * 4
    assert min(answer.edge_seconds, answer.cloud_seconds, answer.network_seconds) > 0


def test_half_precision_halves_the_upload(cloud: str, network: nn.Module, faces: Faces) -> None:
    batch = images(faces, 16)
    with CloudClient(cloud, "middle", datatype="FP16") as client:
        answer = Edge(partition(network), client, group_size=GROUP).classify(batch)
    assert answer.bytes_up < 16 * 8 * 8 * 8 * 2 + 200


@pytest.mark.parametrize("count", [1, 7, 9, 16])
def test_short_batches_are_filled_and_trimmed(count: int, client: Tap, network: nn.Module, faces: Faces) -> None:
    # The network's cloud part is linear but for its offsets, so that predictions hardly depend on the
    # company.
    batch = images(faces, count)
    edge = Edge(partition(network), client, group_size=GROUP, decoys=normalise(faces.images[20:]))
    answer = edge.classify(batch)
    assert answer.scores.shape == (count, 6)
    assert answer.rows_sent == -(-count // GROUP) * GROUP
    assert list(client.requests[0].inputs[0].shape) == [answer.rows_sent, 8, 8, 8]


def test_decoys_do_not_show_in_the_scores(faces: Faces) -> None:
    """With a cloud that is linear, scores do not depend on the decoys at all."""

    class Linear(CloudClient):
        def __init__(self) -> None:
            pass

        def infer(self, features: NDArray[np.floating]) -> Reply:
            return Reply(features.mean(axis=(2, 3)) @ np.eye(8, 64, dtype=np.float32), 0, 0, 0.0, 0.0)

    model = build("resnet18", {"num_classes": 6, "in_channels": 1, "width": 0.125}).eval()
    parts = partition(model)
    scores = [
        Edge(parts, Linear(), group_size=GROUP, decoys=decoys).classify(images(faces, 5)).scores
        for decoys in (normalise(faces.images[10:20]), normalise(faces.images[30:]))
    ]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-5)


def test_nothing_secret_is_sent(client: Tap, network: nn.Module, faces: Faces, keys: list) -> None:
    parts = partition(network)
    batch = images(faces, 24)
    edge = Edge(parts, client, group_size=GROUP)
    edge.classify(batch)
    edge.classify(batch)
    assert len(keys) == 2
    for request, (_, coeffs, order) in zip(client.requests, keys, strict=True):
        # The message says which model, what the tensor is called, its type and shape, and its bytes: nothing
        # else.
        fields = {field.name for field, _ in request.ListFields()}
        assert fields == {"model_name", "inputs", "raw_input_contents"}
        assert {field.name for field, _ in request.inputs[0].ListFields()} == {"name", "datatype", "shape"}
        sent = torch.frombuffer(bytearray(request.raw_input_contents[0]), dtype=torch.float32).view(24, -1)
        wire = request.SerializeToString()
        for secret in (coeffs, coeffs.float(), order, order.int()):
            assert secret.numpy().tobytes() not in wire
            assert secret.flatten()[:GROUP].numpy().tobytes() not in wire
        with torch.no_grad():
            features = parts.edge_first(batch).flatten(1)
        # No row is an un-mixed one, up to its scale. (Faces are alike, and so are mixtures.)
        cosine = nn.functional.normalize(sent) @ nn.functional.normalize(features).T
        assert cosine.abs().max() < 0.99999
    assert client.requests[0].raw_input_contents != client.requests[1].raw_input_contents
    assert not torch.equal(keys[0][1], keys[1][1])


def test_keys_are_closed_after_use(client: Tap, network: nn.Module, faces: Faces, keys: list) -> None:
    Edge(partition(network), client, group_size=GROUP).classify(images(faces, 16))
    assert [key.closed for key, _, _ in keys] == [True]


class Failing(CloudClient):
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def infer(self, features: NDArray[np.floating]) -> Reply:
        raise self._error


@pytest.mark.parametrize("error", [CloudUnreachable("gone"), KeyboardInterrupt(), MemoryError()])
def test_keys_are_closed_on_failure(error: BaseException, network: nn.Module, faces: Faces, keys: list) -> None:
    edge = Edge(partition(network), Failing(error), group_size=GROUP)
    with pytest.raises(type(error)):
        edge.classify(images(faces, 16))
    assert [key.closed for key, _, _ in keys] == [True]


def test_keys_are_closed_when_the_images_do_not_fit(client: Tap, network: nn.Module, keys: list) -> None:
    edge = Edge(partition(network), client, group_size=GROUP)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        edge.classify(torch.zeros(8, 3, 32, 32))  # three channels for a grey network
    assert [key.closed for key, _, _ in keys] == [True]


def test_groups_are_drawn_anew(client: Tap, network: nn.Module, faces: Faces) -> None:
    edge = Edge(partition(network), client, group_size=GROUP)
    orders = {tuple(edge._fill(images(faces, 48))[1].tolist()) for _ in range(4)}
    assert len(orders) == 4


def test_no_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(CloudUnreachable, match=f"no answer from {address} within 5 s"):
            CloudClient(address, "middle", timeout=5)


def test_unknown_model(cloud: str) -> None:
    with pytest.raises(CloudRefused, match=r"refused \(NOT_FOUND\): model must be 'middle' .*, got 'other'"):
        CloudClient(cloud, "other")


def test_a_bad_reply(client: Tap, network: nn.Module, faces: Faces, monkeypatch: pytest.MonkeyPatch) -> None:
    call = CloudClient._call

    def drop_a_row(self, method, request):  # type: ignore[no-untyped-def]
        response = call(self, method, request)
        response.outputs[0].shape[0] -= 1
        return response

    monkeypatch.setattr(CloudClient, "_call", drop_a_row)
    edge = Edge(partition(network), client, group_size=GROUP)
    with pytest.raises(CloudReplyError, match=r"output .* must have shape \[16, 64\], got \[15, 64\]"):
        edge.classify(images(faces, 16))


@pytest.mark.parametrize(
    ("batch", "decoys", "message"),
    [
        (torch.zeros(9, 1, 32, 32), None, "divide into groups of 8 when there are no decoys, got 9"),
        (torch.zeros(0, 1, 32, 32), None, "have shape [N, C, H, W] with N >= 1, got [0, 1, 32, 32]"),
        (torch.zeros(8, 32, 32), None, "have shape [N, C, H, W] with N >= 1, got [8, 32, 32]"),
        (
            torch.zeros(9, 1, 32, 32),
            torch.zeros(4, 1, 30, 32),
            "images must have the decoys' shape [1, 30, 32], got [1, 32, 32]",
        ),
    ],
)
def test_refusals_say_what_came(
    client: Tap, network: nn.Module, batch: Tensor, decoys: Tensor | None, message: str
) -> None:
    edge = Edge(partition(network), client, group_size=GROUP, decoys=decoys)
    with pytest.raises(ValueError, match=re.escape(message)):
        edge.classify(batch)
