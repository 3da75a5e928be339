"""Python in a fresh process: what depends on the environment or on the first import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` outside the repository, so that the installed package is the one imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FACEMIX_") and k != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False
    )


def output_of(code: str, cwd: Path, **environment: str) -> str:
    """Its standard output; an exit status other than 0 is a failure."""
    done = python(code, cwd, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(code: str, cwd: Path, **environment: str) -> str:
    """The last line of the traceback that it must end with."""
    done = python(code, cwd, **environment)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stderr.strip().splitlines()[-1]
