"""The edge and the cloud's own process: the same answers as with PyTorch in one piece, and no PyTorch on the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from facemix.data import MEAN, STD, Labelled, normalise
from facemix.edge import Client, CloudMismatch, CloudRefused
from facemix.export import export_edge
from facemix.models import build
from facemix.partition import partition
from numpy.typing import NDArray
from processes import output_of
from torch import nn

from facemix_ops.edge import EdgeModel, MixedRequest

from .conftest import IMAGE_SHAPE, OPTIONS

GROUP = 8


class Watched:
    """A half that keeps what it mixed, and copies of its keys."""

    def __init__(self, half: EdgeModel) -> None:
        self._half, self.bundle = half, half.bundle
        self.mixed: list[tuple[NDArray[np.uint8], Any, NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]] = []

    def mix(self, pictures: NDArray[np.uint8], *, wire_dtype: str) -> MixedRequest:
        request = self._half.mix(pictures, wire_dtype=wire_dtype)
        key = request._key
        self.mixed.append((pictures, key, key.coeffs.copy(), key.order.copy(), key.rows.copy()))
        return request


@pytest.fixture(scope="module")
def pictures(faces: Labelled) -> NDArray[np.uint8]:
    return np.ascontiguousarray(faces.images.transpose(0, 2, 3, 1))


def exported(network: nn.Module, folder: Path, **options: Any) -> Path:
    path = folder / "edge.safetensors"
    given = {"name": "middle", "group_size": GROUP, "mean": [MEAN], "std": [STD], "max_coeff": 0.6, **options}
    export_edge(path, network, IMAGE_SHAPE, **given)
    return path


def in_one_piece(network: nn.Module, watched: Watched) -> dict[bytes, torch.Tensor]:
    """Scores of every picture that was mixed: x -> first -> A -> cloud -> A^T -> last, in plain PyTorch."""
    parts, scores = partition(network), {}
    for batch, _, coeffs, order, rows in watched.mixed:
        a, to = torch.from_numpy(coeffs).float(), torch.from_numpy(order)
        x = torch.empty(len(batch), *IMAGE_SHAPE)
        x[rows] = normalise(torch.from_numpy(batch).permute(0, 3, 1, 2) / 255)
        with torch.no_grad():
            features = parts.edge_first(x)
            mixed = torch.einsum("gij,gjf->gif", a, features.reshape(len(a), GROUP, -1)).view_as(features)
            sent = torch.empty_like(mixed)
            sent[to] = mixed
            returned = parts.cloud(sent)[to]
            unmixed = torch.einsum("gij,gif->gjf", a, returned.view(len(a), GROUP, -1)).view_as(returned)
            for picture, row in zip(batch, parts.edge_last(unmixed)[rows], strict=True):
                scores[picture.tobytes()] = row
    return scores


@pytest.mark.parametrize("count", [8, 9, 37])
def test_equals_the_split_in_one_process(
    count: int, cloud: str, network: nn.Module, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    half, mine = Watched(EdgeModel.load(exported(network, tmp_path))), pictures[:count]
    with Client(half, cloud, decoys=pictures[40:], request_groups=2, message_bytes=5 * 8 * 8 * 8 * 4) as client:
        answer = client.classify(mine)
    expected = in_one_piece(network, half)
    torch.testing.assert_close(
        torch.from_numpy(answer.scores), torch.stack([expected[p.tobytes()] for p in mine]), rtol=1e-3, atol=1e-3
    )
    for _, key, *_ in half.mixed:
        assert not key.coeffs.any()
        assert not key.order.any()
        assert not key.rows.any()


def test_cost(cloud: str, network: nn.Module, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    with Client(EdgeModel.load(exported(network, tmp_path)), cloud) as client:
        cost = client.classify(pictures[:16]).cost
    assert 16 * 8 * 8 * 8 * 4 < cost.bytes_up < 16 * 8 * 8 * 8 * 4 + 200
    assert 16 * 64 * 4 < cost.bytes_down < 16 * 64 * 4 + 200
    assert min(cost.edge_seconds, cost.cloud_seconds, cost.network_seconds) > 0


def test_the_cloud_of_another_network(cloud: str, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """The shapes are the same; only the fingerprint tells."""
    half = Watched(EdgeModel.load(exported(build("resnet18", OPTIONS).eval(), tmp_path)))
    with Client(half, cloud) as client, pytest.raises(CloudMismatch, match="must be of network"):
        client.classify(pictures[:8])
    assert not half.mixed


@pytest.mark.parametrize("options", [{"name": "other"}, {"version": 2}])
def test_an_unknown_model(
    options: dict[str, Any], cloud: str, network: nn.Module, pictures: NDArray[np.uint8], tmp_path: Path
) -> None:
    half = EdgeModel.load(exported(network, tmp_path, **options))
    with Client(half, cloud) as client, pytest.raises(CloudRefused, match=r"refused \(NOT_FOUND\)"):
        client.classify(pictures[:8])


def test_without_pytorch(cloud: str, network: nn.Module, pictures: NDArray[np.uint8], tmp_path: Path) -> None:
    """A device that has NumPy, gRPC and protobuf, and no more."""
    path, here = exported(network, tmp_path), Path(__file__).parents[2]
    pictures[:8].tofile(tmp_path / "pictures.bin")
    code = f"""
import sys
sys.modules["torch"] = None
sys.path[:0] = [{str(here / "python")!r}, {str(here)!r}]
import numpy as np
from facemix.edge import Client
from facemix_ops.edge import EdgeModel
half = EdgeModel.load({str(path)!r})
pictures = np.fromfile("pictures.bin", np.uint8).reshape(8, *half.bundle.image_shape)
with Client(half, {cloud!r}) as client:
    assert client.classify(pictures).scores.shape == (8, 6)
    assert len(list(client.stream(pictures))) == 8
mine = {{name.partition(".")[0] for name in sys.modules}} - set(sys.stdlib_module_names)
assert not mine & {{"PIL", "safetensors", "matplotlib", "rich"}}, mine
assert not [name for name in sys.modules if name.startswith(("facemix.cloud", "facemix.training", "facemix.models"))]
"""
    assert output_of(code, tmp_path) == ""
