"""Shared pieces: small synthetic faces, a small network, and its cloud as a real process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from facemix.data import Labelled, synthetic_faces
from facemix.demo.cloud_process import cloud_process
from facemix.export import export_cloud
from facemix.models import build
from hypothesis import settings

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125, "activation": "prelu"}
IMAGE_SHAPE = (1, 32, 32)

# Hypothesis: the same examples in every run, few enough for CI, and no test fails for being slow.
settings.register_profile("bounded", max_examples=120, derandomize=True, deadline=None, database=None)
settings.register_profile("long", max_examples=20_000, deadline=None, database=None)
settings.load_profile("bounded")


@pytest.fixture(autouse=True)
def _one_thread(_isolated_threads: None) -> None:
    """On networks this small more only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def faces() -> Labelled:
    return synthetic_faces(people=6, photos=8, size=IMAGE_SHAPE[1:])


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    """A plain network in eval mode, with batch statistics that are not the trivial ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build("resnet18", OPTIONS)
        with torch.no_grad():
            for _ in range(3):
                model(torch.randn(16, *IMAGE_SHAPE))
    return model.eval()


@pytest.fixture(scope="session")
def cloud_file(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cloud") / "cloud.safetensors"
    export_cloud(path, network, "resnet18", OPTIONS, IMAGE_SHAPE, name="middle")
    return path


@pytest.fixture(scope="session")
def cloud(cloud_file: Path) -> Iterator[str]:
    """The address of a cloud process that serves `network`'s middle as "middle"."""
    with cloud_process(cloud_file) as address:
        yield address
