"""`facemix serve` as a real process, with what it prints and logs."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any


class Cloud:
    """A running `facemix serve`; leaving the context kills it.

    Attributes:
        address: what the line that it prints ends with.
        log: its lines of JSON so far.
    """

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "facemix", "serve", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self.process.stdout is not None
        self.printed = self.process.stdout.readline()
        if not self.printed:
            self.kill()
        assert self.printed.startswith("facemix cloud: serving "), self.lines
        self.address = self.printed.split()[-1]
        self.until("serving")

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def until(self, event: str) -> dict[str, Any]:
        """Wait until it has logged `event`; returns the line."""
        end = time.monotonic() + 30
        while True:
            for line in self.log:
                if line["event"] == event:
                    return line
            assert time.monotonic() < end, self.lines
            time.sleep(0.02)

    def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        status = self.process.wait(60)
        self._reader.join()
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def __enter__(self) -> Cloud:
        return self

    def __exit__(self, *unused: object) -> None:
        self.kill()
