"""The demo's cloud process: it ends with the one that started it, and its keeper whenever it is told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from facemix.demo.cloud_process import CloudProcess
from facemix.demo.web import keeper

SCRIPT = """
import sys
from pathlib import Path
from facemix.demo.cloud_process import CloudProcess

cloud = CloudProcess(Path(sys.argv[1]))
print(cloud.listening(), flush=True)
sys.stdin.read()
"""


def test_a_parent_that_is_killed(cloud_file: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(cloud_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().strip()
        assert _listens(address)
        parent.kill()
    deadline = time.monotonic() + 60
    while _listens(address):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_several_models_on_a_port_that_was_chosen(cloud_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = CloudProcess(cloud_file, cloud_file.parent, port=port)
    try:
        address = process.listening()
        assert address == f"127.0.0.1:{port}"
        assert _listens(address)
    finally:
        process.stop()
    assert process.wait() == 0
    assert not _listens(address)


def test_a_keeper_ends_while_a_cloud_starts(cloud_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait until that listens: here it never would."""
    monkeypatch.setattr(keeper, "PAUSE_SECONDS", 0.0)
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 1000\n")
    sleeper.chmod(0o700)
    with keeper.Keeper(cloud_file) as kept:
        first = kept.state["pid"]
        monkeypatch.setattr(sys, "executable", str(sleeper))
        os.kill(first, signal.SIGKILL)
        while (second := kept.state["pid"]) == first:
            time.sleep(0.01)
        assert not kept.state["running"]
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0
