"""The tests that need a GPU: ``pytest tests/gpu``, once with FACEMIX_BACKEND=native, once with triton.

``--device cpu`` runs them on the CPU, to try the tests themselves; streams and graphs are nothing there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import on_card
import pytest
import torch
from on_device import tf32

import facemix_ops


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cuda", help="where the ops run: cuda, or cpu to try the tests themselves")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "small: a few launches of every op, for compute-sanitizer")
    config.pluginmanager.register(on_card)
    if config.getoption("--device") != "cpu" and not torch.cuda.is_available():
        pytest.exit(f"tests/gpu needs a GPU, and PyTorch {torch.__version__} sees none (CUDA {torch.version.cuda})", 1)


def pytest_report_header(config: pytest.Config) -> str:
    device = torch.device(config.getoption("--device"))
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    backend = facemix_ops.explain("conv_mix", torch.empty(0, device=device))
    return f"on {name}, FACEMIX_BACKEND={os.environ.get('FACEMIX_BACKEND', '')}: {backend}"


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the ops run, with its ordinal."""
    kind = request.config.getoption("--device")
    return torch.device("cpu") if kind == "cpu" else torch.device(kind, torch.cuda.current_device())


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    """float32 is float32, but where a test says otherwise."""
    with tf32(False):
        yield
