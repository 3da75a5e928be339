"""The cloud as a process of its own, started and stopped."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from facemix.errors import FacemixError

__all__ = ["cloud_process"]

START_SECONDS = 120.0  # importing PyTorch takes a second or two; a busy machine takes its time
STOP_SECONDS = 15.0


@contextlib.contextmanager
def cloud_process(model: Path) -> Iterator[str]:
    """Run `facemix serve` on a free port of this machine; yields its "host:port", and stops it in the end.

    Raises:
        FacemixError: if it ends, or does not listen in time.
    """
    command = [sys.executable, "-m", "facemix", "serve", "--model", str(model), "--log-level", "warning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_SECONDS):
            raise FacemixError(f"cloud_process: the cloud must listen within {START_SECONDS:g} s")
    line = process.stdout.readline().strip()
    if not line:
        raise FacemixError(f"cloud_process: the cloud must print its address, got exit status {process.wait()}")
    return line.rsplit(" ", 1)[-1]
