"""The edge half on NumPy computes what facemix.edge computes with PyTorch, given the same key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import images
from tolerances import assert_near
from torch import nn
from torch_edge import Network, as_tensor, key_of, load, mixed, normalised, parts_of, trained, unmixed

from facemix_ops.edge import EdgeModel

ResNet, Vgg = (218, 178, 3), (33, 31, 3)

# name: (image, the first part, group size, groups)
CASES = {
    "resnet stem": (ResNet, [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()], 8, 1),
    "resnet stem, pool": (
        ResNet,
        [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)],
        8,
        1,
    ),
    "vgg conv1": (Vgg, [nn.Conv2d(3, 64, 3, padding=1), nn.ReLU()], 8, 2),
    "pairs": (Vgg, [nn.Conv2d(3, 5, 3), nn.ReLU()], 2, 5),
    "threes, odd channels": (Vgg, [nn.Conv2d(3, 7, 5, 3, 1), nn.BatchNorm2d(7)], 3, 3),
    "sixteens, grey": ((20, 17, 1), [nn.Conv2d(1, 33, 3, 1, 1), nn.BatchNorm2d(33, affine=False), nn.PReLU()], 16, 1),
    "no activation": (Vgg, [nn.Conv2d(3, 16, 3)], 4, 1),
    "dilation, uneven": (
        (20, 31, 3),
        [nn.Conv2d(3, 9, (3, 5), (2, 1), (1, 4), (2, 3)), nn.LeakyReLU(0.2), nn.MaxPool2d((2, 3), (1, 2), (1, 0))],
        8,
        2,
    ),
    "same": (Vgg, [nn.Conv2d(3, 9, 5, padding="same", dilation=2), nn.ReLU(), nn.MaxPool2d(2)], 4, 2),
    "valid": (Vgg, [nn.Conv2d(3, 9, 4, padding="valid"), nn.PReLU(init=-0.5), nn.MaxPool2d(2)], 4, 2),
}


@pytest.mark.parametrize("wire_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch(case: str, wire_dtype: str, tmp_path: Path) -> None:
    image, first, size, groups = CASES[case]
    network = trained(Network(*first), image)
    pictures = images(size * groups, image)
    model = load(network, tmp_path, image, size)
    with model.mix(pictures, wire_dtype=wire_dtype) as request:
        key, rows = key_of(request)
        sent = as_tensor(request.payload, wire_dtype)
        batch = torch.empty_like(normalised(pictures))
        batch[rows] = normalised(pictures)
        expected, plain = (mixed(network, batch.to(t), key, t) for t in (torch.float64, torch.float32))
        assert_near(sent, expected, plain.to(sent.dtype))
        with torch.no_grad():
            reply = parts_of(network).cloud(sent.float())
        result = request.classify(reply.numpy())
    scores, plain = (unmixed(network, reply.to(t), key)[rows] for t in (torch.float64, torch.float32))
    assert_near(torch.from_numpy(result.scores), scores, plain)
    assert result.scores.dtype == np.float32
    np.testing.assert_array_equal(result.labels, scores.argmax(1))
    assert result.names is None


@pytest.mark.parametrize("datatype", ["float32", "float16", "bfloat16"])
def test_replies_of_every_dtype(datatype: str, tmp_path: Path) -> None:
    network = trained(Network(nn.Conv2d(3, 5, 3), bias=False), Vgg)
    model = load(network, tmp_path, Vgg, 4)
    with model.mix(images(8, Vgg)) as request:
        key, rows = key_of(request)
        reply = torch.randn(8, 6).to(getattr(torch, datatype))
        bits = reply.view(torch.uint16) if datatype == "bfloat16" else reply
        result = request.classify(bits.numpy())
    expected, plain = (unmixed(network, reply.to(t), key)[rows] for t in (torch.float64, torch.float32))
    assert_near(torch.from_numpy(result.scores), expected, plain)


def test_layouts(tmp_path: Path) -> None:
    """Strided, reversed and read-only images, replies out of place in memory: the same results as of plain ones."""
    network = trained(Network(nn.Conv2d(3, 5, 3), nn.ReLU()), Vgg)
    model = load(network, tmp_path, Vgg, 4)
    pictures = images(4, Vgg)
    strided = np.empty((4, 3, 31, 66), np.uint8).transpose(0, 3, 2, 1)[:, ::-2]
    strided[...] = pictures
    frozen = pictures.copy()
    frozen.flags.writeable = False
    for given in (strided, frozen):
        with model.mix(given) as request:
            key, rows = key_of(request)
            batch = torch.empty(4, 3, 33, 31)
            batch[rows] = normalised(pictures).float()
            assert_near(torch.from_numpy(request.payload), mixed(network, batch.double(), key, torch.float64))
            reply = torch.randn(4, 6)
            raw = b"x" + reply.numpy().tobytes()
            odd = np.frombuffer(raw, np.float32, offset=1).reshape(4, 6)
            assert not odd.flags.aligned
            scores = request.classify(odd).scores
        assert_near(torch.from_numpy(scores), unmixed(network, reply.double(), key)[rows])


def test_out_is_written_and_nothing_else(tmp_path: Path) -> None:
    network = trained(Network(nn.Conv2d(3, 5, 3), nn.ReLU()), Vgg)
    model = load(network, tmp_path, Vgg, 4)
    for wire_dtype, dtype in (("float32", np.float32), ("float16", np.float16), ("bfloat16", np.uint16)):
        shape = model.payload_shape(8)
        memory = np.full(np.prod(shape) + 2, 777, dtype)
        out = memory[1:-1].reshape(shape)
        with model.mix(images(8, Vgg), wire_dtype=wire_dtype, out=out) as request:
            assert request.payload is out
            key, rows = key_of(request)
            batch = torch.empty(8, 3, 33, 31, dtype=torch.float64)
            batch[rows] = normalised(images(8, Vgg))
            sent = as_tensor(out, wire_dtype)
            assert_near(sent, mixed(network, batch, key, torch.float64), mixed(network, batch.float(), key, sent.dtype))
        assert memory[0] == memory[-1] == 777


def linear_cloud(payload: np.ndarray) -> np.ndarray:
    """One whose answer to a mixture is the mixture of its answers: scores depend on an image alone."""
    means = payload.mean((2, 3))
    return np.concatenate((means, means[:, :1]), 1)


def alone(network: Network, pictures: np.ndarray) -> np.ndarray:
    """The scores of such a cloud without any mixing."""
    with torch.no_grad():
        features = parts_of(network).edge_first(normalised(pictures).float())
        return network.last(torch.from_numpy(linear_cloud(features.numpy()))).numpy()


@pytest.mark.parametrize("count", [1, 3, 5, 9])
def test_short_batches_are_filled_with_decoys(count: int, tmp_path: Path) -> None:
    """And the decoys' scores are dropped."""
    network = trained(Network(nn.Conv2d(3, 5, 3), nn.ReLU()), Vgg)
    model = EdgeModel(load(network, tmp_path, Vgg, 4).bundle, decoys=images(3, Vgg, seed=1))
    pictures = images(count, Vgg)
    with model.mix(pictures) as request:
        assert request.payload.shape == model.payload_shape(count) == (-(-count // 4) * 4, 5, 31, 29)
        result = request.classify(linear_cloud(request.payload))
    np.testing.assert_allclose(result.scores, alone(network, pictures), rtol=1e-4, atol=1e-5)
    assert len(result.labels) == count


def test_a_model_serves_many_threads(tmp_path: Path) -> None:
    network = trained(Network(nn.Conv2d(3, 5, 3), nn.ReLU()), Vgg)
    model = load(network, tmp_path, Vgg, 4)

    def classify(seed: int) -> tuple[np.ndarray, np.ndarray]:
        pictures = images(4, Vgg, seed)
        with model.mix(pictures) as request:
            return pictures, request.classify(linear_cloud(request.payload)).scores

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(classify, range(64)))
    for pictures, scores in answers:
        np.testing.assert_allclose(scores, alone(network, pictures), rtol=1e-4, atol=1e-5)


def test_decoys_of_a_request_differ(tmp_path: Path) -> None:
    model = load(trained(Network(nn.Conv2d(3, 5, 3)), Vgg), tmp_path, Vgg, 8)
    pictures, decoys = images(6, Vgg), images(2, Vgg, seed=1)
    few = EdgeModel(model.bundle, decoys=np.concatenate((decoys, decoys, pictures[:1])))
    with few.mix(pictures), pytest.raises(ValueError, match=r"groups of 8, .* than decoys fill, 2, got 5"):
        few.mix(pictures[:5])  # a group with one of them twice would hide less


def test_threads_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, several, more than there is work for."""
    network = trained(Network(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.MaxPool2d(2)), Vgg)
    bundle = load(network, tmp_path, Vgg, 4).bundle
    pictures = images(4, Vgg)
    with EdgeModel(bundle, threads=1).mix(pictures) as request:
        key = request._key
        monkeypatch.setattr("facemix_ops.edge.model.Key", lambda *_: key)
        monkeypatch.setattr("os.cpu_count", lambda: 64)
        for threads in (2, 3, 64):
            again = EdgeModel(bundle, threads=threads).mix(pictures)
            np.testing.assert_array_equal(again.payload, request.payload)
