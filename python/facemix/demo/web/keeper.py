"""A cloud process that is started again when it ends."""

from __future__ import annotations

import threading
from pathlib import Path

from facemix.demo.cloud_process import CloudProcess
from facemix.errors import FacemixError

__all__ = ["Keeper"]

PAUSE_SECONDS = 3.0  # long enough to see on the page what a cloud that is gone means


class Keeper:
    """Keeps `facemix serve` running on one port, until the end of the `with` block.

    Args:
        models: files of cloud parts.

    Attributes:
        address: "host:port", always the same.

    Raises:
        FacemixError: if the first start fails.
    """

    def __init__(self, *models: Path) -> None:
        self._models = models
        self._process = CloudProcess(*models)
        try:
            self.address = self._process.listening()
        except BaseException:
            self._process.stop()
            raise
        self._running, self._stopping = True, threading.Event()
        self._thread = threading.Thread(target=self._keep, name="facemix-keeper", daemon=True)
        self._thread.start()

    @property
    def state(self) -> dict[str, object]:
        """For the page: whether the process is running, and its number."""
        return {"running": self._running, "pid": self._process.pid}

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *unused: object) -> None:
        self._stopping.set()
        self._process.end()
        self._thread.join()

    def _keep(self) -> None:
        port = int(self.address.rsplit(":", 1)[1])
        while True:
            self._process.wait()
            self._running = False
            self._process.stop()
            if self._stopping.wait(PAUSE_SECONDS):
                return
            self._process = CloudProcess(*self._models, port=port)
            if self._stopping.is_set():  # since before it was there to be ended
                self._process.end()
            try:
                self._process.listening()
                self._running = True
            except FacemixError:  # somebody else has the port, perhaps for a moment; or it is to stop
                self._process.end()
