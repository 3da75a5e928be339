"""setup.py: what FACEMIX_BUILD_CUDA may be, and what it says when it cannot be met."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build_ext(tmp_path: Path, cuda: str) -> subprocess.CompletedProcess[str]:
    """Starts a build where no compiler of any kind can be found."""
    hidden = ("PATH", "CUDACXX", "CUDA_HOME", "FACEMIX_BUILD_CUDA")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"PATH": str(tmp_path), "FACEMIX_BUILD_CUDA": cuda}
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_cuda_without_nvcc_says_what_to_install(tmp_path: Path) -> None:
    result = build_ext(tmp_path, "1")
    assert result.returncode != 0
    assert "FACEMIX_BUILD_CUDA=1 needs nvcc" in result.stderr
    assert "Install the CUDA toolkit" in result.stderr
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize("value", ["yes", "2", ""])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    result = build_ext(tmp_path, value)
    assert result.returncode != 0
    assert f"FACEMIX_BUILD_CUDA must be auto, 1 or 0, got {value!r}" in result.stderr
