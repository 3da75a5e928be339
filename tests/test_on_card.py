"""What the GPU suite does where a test takes the CUDA context with it, on a device that is made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HELPERS = Path(__file__).parent / "helpers"
SUITE = """
import pytest
import torch

lost = False


def synchronize():
    if lost:
        raise RuntimeError("an illegal memory access was encountered")


torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize


@pytest.mark.parametrize("i", range(8))
def test_it(i):
    global lost
    lost = lost or i == 2
    synchronize()
    assert i != 5, "five"
"""


def ran(folder: Path, *options: str) -> str:
    """What a suite says that fails."""
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "on_card", *options, str(folder)]
    there = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}  # we may be one
    there["PYTHONPATH"] = str(HELPERS)
    done = subprocess.run(command, cwd=folder, env=there, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    return done.stdout


def test_a_lost_context_costs_one_test(tmp_path: Path) -> None:
    """Another process runs what is left. Failures are said at once: a suite that is cut off comes to no report."""
    said = ran(tmp_path, "-n", "2")
    assert "6 passed" in said
    assert {line.split()[1] for line in said.splitlines() if line.startswith("FAILED")} == {
        "test_suite.py::test_it[2]", "test_suite.py::test_it[5]",
    }  # fmt: skip
    before = said.split("= FAILURES =")[0]
    assert "failed: test_suite.py::test_it[2]: RuntimeError: an illegal memory access was encountered" in before
    assert "failed: test_suite.py::test_it[5]: AssertionError: five" in before


def test_a_single_process_ends_and_says_why(tmp_path: Path) -> None:
    said = ran(tmp_path, "-p", "no:xdist")
    assert "test_suite.py::test_it[2] took the CUDA context with it" in said
    assert "2 passed" in said
