"""The edge without PyTorch and the pipeline's cloud process, over facemix's own transport."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import images
from facemix.data import MEAN, STD, normalise
from facemix.demo.cloud_process import cloud_process
from facemix.edge import CloudClient
from facemix.edge.halves import first_half, last_half
from facemix.export import export_cloud, export_edge
from facemix.models import build
from facemix.partition import partition
from torch import nn
from torch_edge import key_of

from facemix_ops.edge import EdgeModel

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
SHAPE = (1, 32, 24)
DATATYPE = {"float32": "FP32", "float16": "FP16"}


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


@pytest.mark.parametrize(("wire_dtype", "tolerance"), [("float32", 1e-4), ("float16", 2e-2)])
def test_through_the_cloud_process(
    cloud: str, folder: Path, network: nn.Module, wire_dtype: str, tolerance: float
) -> None:
    """The same scores as with PyTorch on the edge and the same key, as near as the wire's rounding allows."""
    model = EdgeModel.load(folder / "edge.safetensors")
    pictures = images(16, (32, 24, 1))
    parts = partition(network)
    with (
        CloudClient(cloud, model.bundle.name, datatype=DATATYPE[wire_dtype]) as client,
        model.mix(pictures, wire_dtype=wire_dtype) as request,
    ):
        key, rows = key_of(request)
        reply = client.infer(request.payload)
        result = request.classify(reply.outputs)
    assert reply.bytes_up < request.payload.nbytes + 200
    batch = torch.empty(16, *SHAPE)
    batch[rows] = normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255)
    with torch.no_grad():
        mixed = first_half(parts.edge_first, 8)(batch, key)
        expected = last_half(parts.edge_last)(parts.cloud(mixed), key)[rows]
    torch.testing.assert_close(torch.from_numpy(result.scores), expected, rtol=tolerance, atol=tolerance)
    assert result.names == ["abcdef"[label] for label in result.labels]


def test_the_demos_bundle_says_what_the_cloud_serves(cloud: str, folder: Path) -> None:
    bundle = EdgeModel.load(folder / "edge.safetensors").bundle
    assert (bundle.name, bundle.wire_dtype, bundle.max_coeff) == ("middle", "float16", 0.6)
    with CloudClient(cloud, bundle.name) as client:
        assert client.infer(np.zeros((8, *bundle.features_shape), np.float32)).outputs.shape == (8, 64)
