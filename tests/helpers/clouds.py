"""A cloud process that may be killed, stopped, and started again on the same port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["CloudProcess"]

STOP_SECONDS = 30


class CloudProcess:
    """`facemix serve` for `model`, a file or a folder; a context manager. What it logs goes to `log`.

    Attributes:
        address: "host:port", the same after each start.
    """

    def __init__(self, model: Path, log: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "facemix", "serve", "--threads", "1", *options]
        self._environment = {**os.environ, **(environment or {})}
        self.model, self.log, self.address = model, log, "127.0.0.1:0"

    def start(self) -> None:
        """Returns when it listens."""
        port = self.address.rsplit(":", 1)[1]
        command = [*self._command, "--model", str(self.model), "--port", port]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self._environment
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.address = line.split()[-1]

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT..."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """At once, as when the power fails."""
        self.process.kill()
        self._ended()

    def __enter__(self) -> CloudProcess:
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._ended()

    def _ended(self) -> None:
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
