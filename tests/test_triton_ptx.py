"""The GPU suite on the Triton kernels, as Triton compiles them for sm_80 (tests/helpers/on_ptx.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import python

TESTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("op", "selection"),
    [
        ("act_mix", "small or activations"),
        ("autograd", "small"),
        ("conv_mix", "small or walks"),
        ("group_mix", "small"),
        ("unmix_linear", "small"),
    ],
)
def test_on_ptx(op: str, selection: str, tmp_path: Path) -> None:
    """Five cases of each test: all dtypes; in a process of their own, whose ops are registered for it."""
    arguments = ["-q", "-p", "on_ptx", "-p", "no:cacheprovider", "--cases=5", "--device=cpu", "-k", selection]
    arguments.append(str(TESTS / "gpu" / f"test_{op}.py"))
    done = python(
        f"import sys, pytest; sys.exit(pytest.main({arguments!r}))",
        tmp_path,
        FACEMIX_BACKEND="triton",
        TRITON_CACHE_DIR=str(tmp_path / "cache"),
        PYTHONPATH=str(TESTS / "helpers"),
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
