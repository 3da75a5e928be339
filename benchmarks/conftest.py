"""What the benchmarks share: fixed inputs, and both contestants timed by pytest-benchmark in one run."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture
def group_size() -> int:
    return 8


@pytest.fixture(autouse=True)
def _seeded_without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(params=["facemix", "eager"])
def contestant(request: pytest.FixtureRequest) -> str:
    """Our op with its output reused, or the plain-PyTorch reference, which cannot."""
    return request.param


@pytest.fixture(params=["contiguous", "channels_last"])
def layout(request: pytest.FixtureRequest) -> torch.memory_format:
    return torch.contiguous_format if request.param == "contiguous" else torch.channels_last
