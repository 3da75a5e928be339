"""The GPU suite on the Triton kernels, as Triton compiles them for sm_80 (tests/helpers/on_ptx.py), and those that
multiply for sm_90 too, where they are products of warpgroups."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import triton
from packaging.version import Version
from processes import python

TESTS = Path(__file__).parent
# Triton before 3.8 leaves out a fence between a copy and a product of it (benchmarks/NOTES.md): the machine says so.
NO_FENCE = Version(triton.__version__) < Version("3.8")


@pytest.mark.parametrize(
    ("capability", "op", "selection"),
    [
        (80, "act_mix", "small or activations"),
        (80, "autograd", "small"),
        (80, "conv_mix", "small or walks"),
        (80, "group_mix", "small"),
        (80, "unmix_linear", "small"),
        (90, "conv_mix", "small or walks"),
        (90, "unmix_linear", "small"),
    ],
)
def test_on_ptx(capability: int, op: str, selection: str, tmp_path: Path) -> None:
    """Five cases of each test: all dtypes; in a process of their own, whose ops are registered for it."""
    arguments = ["-q", "-p", "on_ptx", "-p", "no:cacheprovider", "--cases=5", "--device=cpu", "-k", selection]
    arguments.append(str(TESTS / "gpu" / f"test_{op}.py"))
    done = python(
        f"import sys, pytest; sys.exit(pytest.main({arguments!r}))",
        tmp_path,
        FACEMIX_BACKEND="triton",
        FACEMIX_PTX_CAPABILITY=str(capability),
        TRITON_CACHE_DIR=str(tmp_path / "cache"),
        PYTHONPATH=str(TESTS / "helpers"),
    )
    if NO_FENCE and (capability, op) == (90, "conv_mix"):
        failed = re.search(r"^(\d+) failed", done.stdout, re.MULTILINE)
        missed = re.findall(r"^E +ptx\.memory\.PtxError: .* no fence is behind", done.stdout, re.MULTILINE)
        assert failed is not None
        assert int(failed[1]) == len(missed)
        return
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
