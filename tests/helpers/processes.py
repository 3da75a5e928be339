"""Python in a fresh process: what depends on the environment or on the first import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def python(code: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``code`` outside the repository, so that the package is the one that the tests import: the installed one, or
    one on PYTHONPATH, before which comes that of ``environment``.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FACEMIX_")}
    paths = [env["PYTHONPATH"] for env in (environment, clean) if env.get("PYTHONPATH")]
    changed = clean | environment | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=changed, capture_output=True, text=True, check=False
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
