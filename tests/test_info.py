"""python -m facemix_ops.info."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import facemix
import torch
from processes import output_of

import facemix_ops
from facemix_ops.info import collect
from facemix_ops.native import C


def test_prints_the_table(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "facemix_ops.info"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = collect()
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(rows)
    for line, (name, value) in zip(lines, rows.items(), strict=True):
        assert line.split("  ")[0] == name
        assert line.endswith(f"  {value}")


def test_contents() -> None:
    rows = collect()
    assert rows["facemix"] == facemix_ops.__version__
    assert rows["torch"].split("+")[0] == torch.__version__.split("+")[0]  # wheels on PyPI do not name their variant
    assert rows["cpu capability"] == C.capability()
    assert rows["instruction sets, compiled"].split() == C.compiled_capabilities()
    assert rows["instruction sets, compiled"].split()[0] in ("baseline", "neon")
    assert rows["cpu capability"] in C.available_capabilities()[-2:]  # a CPU may be poor at its widest
    assert rows["cuda architectures"]


def test_follows_the_override(tmp_path: Path) -> None:
    code = 'from facemix_ops.info import collect; print(collect()["cpu capability"])'
    narrowest = C.available_capabilities()[0]
    assert output_of(code, tmp_path, FACEMIX_CPU_CAPABILITY=narrowest) == f"{narrowest}\n"


def test_a_wrong_override_is_a_line(tmp_path: Path) -> None:
    command, changed = [sys.executable, "-m", "facemix_ops.info"], os.environ | {"FACEMIX_CPU_CAPABILITY": "avx3"}
    done = subprocess.run(command, cwd=tmp_path, env=changed, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("FACEMIX_CPU_CAPABILITY: capability must be one of ")
    assert done.stderr.endswith(", got avx3\n")


def test_both_packages_are_of_one_version() -> None:
    """The cloud's image has `facemix` alone, so that it says its version itself."""
    assert facemix.__version__ == facemix_ops.__version__
