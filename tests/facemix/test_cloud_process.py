"""The cloud process ends with the one that started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from facemix.demo.cloud_process import CloudProcess

SCRIPT = """
import sys
from pathlib import Path
from facemix.demo.cloud_process import CloudProcess

print(CloudProcess(Path(sys.argv[1])).address, flush=True)
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
        assert process.address == f"127.0.0.1:{port}"
        assert _listens(process.address)
    finally:
        process.stop()
    assert process.wait() == 0
    assert not _listens(process.address)


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0
