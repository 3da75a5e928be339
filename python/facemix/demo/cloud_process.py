"""The cloud as a process of its own, started and stopped."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from facemix.errors import FacemixError

__all__ = ["CloudProcess", "cloud_process"]

START_SECONDS = 120.0  # importing PyTorch takes a second or two; a busy machine takes its time
STOP_SECONDS = 15.0


@contextlib.contextmanager
def cloud_process(*models: Path) -> Iterator[str]:
    """Run `facemix serve` on a free port of this machine; yields its "host:port", and stops it in the end.

    Raises:
        FacemixError: if it ends, or does not listen in time.
    """
    process = CloudProcess(*models)
    try:
        yield process.listening()
    finally:
        process.stop()


class CloudProcess:
    """`facemix serve` on this machine, started. It ends with this process, even where this one is killed.

    Args:
        models: files of cloud parts.
        port: where to listen; 0 takes a free one.

    Attributes:
        pid: of the process.
    """

    def __init__(self, *models: Path, port: int = 0) -> None:
        options = [option for model in models for option in ("--model", str(model))]
        command = [sys.executable, "-m", "facemix.demo.cloud_child", *options, "--port", str(port)]
        # Nobody writes to its standard input: it ends when we do, see cloud_child.
        self._process = subprocess.Popen(
            [*command, "--log-level", "warning"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid

    def listening(self) -> str:
        """Wait until it listens; returns its "host:port".

        Raises:
            FacemixError: if it ends, or does not listen in time.
        """
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                raise FacemixError(f"cloud_process: the cloud must listen within {START_SECONDS:g} s")
        line = self._process.stdout.readline().strip()
        if not line:
            raise FacemixError(f"cloud_process: the cloud must print its address, got exit status {self.wait()}")
        return line.rsplit(" ", 1)[-1]

    def wait(self) -> int:
        """Return its exit status when it has ended."""
        return self._process.wait()

    def end(self) -> None:
        """Have it end: it drains, and is killed if that takes long. For any thread."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Have it end, and close the pipes to it."""
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
