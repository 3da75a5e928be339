"""The edge without PyTorch and the pipeline's cloud process, through facemix's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import images
from facemix.data import MEAN, STD, normalise
from facemix.demo.cloud_process import cloud_process
from facemix.edge import Client
from facemix.edge.halves import first_half, last_half
from facemix.export import export_cloud, export_edge
from facemix.models import build
from facemix.partition import partition
from numpy.typing import NDArray
from torch import nn
from torch_edge import key_of

from facemix_ops import MixKey
from facemix_ops.edge import EdgeModel, MixedRequest

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
SHAPE = (1, 32, 24)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build("resnet18", OPTIONS)
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(16, *SHAPE))
    return model.eval()


@pytest.fixture(scope="module")
def folder(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cloud")
    export_cloud(path / "cloud.safetensors", network, "resnet18", OPTIONS, SHAPE, name="middle")
    export_edge(
        path / "edge.safetensors", network, SHAPE, name="middle", group_size=8, mean=[MEAN], std=[STD], max_coeff=0.6,
        wire_dtype="float16", classes=["a", "b", "c", "d", "e", "f"],
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def cloud(folder: Path) -> Iterator[str]:
    with cloud_process(folder / "cloud.safetensors") as address:
        yield address


class Watched:
    """A half that keeps a copy of its last key, which nobody else may."""

    def __init__(self, half: EdgeModel) -> None:
        self._half, self.bundle = half, half.bundle

    def mix(self, pictures: NDArray[np.uint8], *, wire_dtype: str) -> MixedRequest:
        request = self._half.mix(pictures, wire_dtype=wire_dtype)
        key, self.rows = key_of(request)
        self.images, self.key = pictures, MixKey(key.coeffs.clone(), key.order.clone())
        return request


@pytest.mark.parametrize(("wire_dtype", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
def test_through_the_cloud_process(
    cloud: str, folder: Path, network: nn.Module, wire_dtype: str, tolerance: float
) -> None:
    """The same scores as with PyTorch on the edge and the same key, as near as the wire's rounding allows."""
    half = Watched(EdgeModel.load(folder / "edge.safetensors"))
    pictures, parts = images(16, (32, 24, 1)), partition(network)
    with Client(half, cloud, wire_dtype=wire_dtype) as client:
        answer = client.classify(pictures)
    batch = torch.empty(16, *SHAPE)
    batch[half.rows] = normalise(torch.from_numpy(half.images).permute(0, 3, 1, 2) / 255)
    with torch.no_grad():
        mixed = first_half(parts.edge_first, 8)(batch, half.key)
        expected = last_half(parts.edge_last)(parts.cloud(mixed), half.key)[half.rows].numpy()
    places = [next(n for n, image in enumerate(half.images) if (image == picture).all()) for picture in pictures]
    np.testing.assert_allclose(answer.scores, expected[places], rtol=tolerance, atol=tolerance)
    assert answer.names == ["abcdef"[label] for label in answer.labels]
    itemsize = np.dtype(wire_dtype).itemsize
    assert 16 * 8 * 8 * 6 * itemsize < answer.cost.bytes_up < 16 * 8 * 8 * 6 * itemsize + 200


def test_the_demos_bundle_says_what_the_cloud_serves(cloud: str, folder: Path) -> None:
    bundle = EdgeModel.load(folder / "edge.safetensors").bundle
    assert (bundle.name, bundle.wire_dtype, bundle.max_coeff) == ("middle", "float16", 0.6)
    with Client(EdgeModel(bundle), cloud) as client:
        assert client.classify(images(8, (32, 24, 1))).scores.shape == (8, 6)
