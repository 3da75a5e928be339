"""A model that takes long to load holds up nothing: neither a token's end nor the process's."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import cast

import grpc
import pytest
from cloud_process import Cloud
from cloud_server import Doubler, code_of, run, serving, stub_of, until
from facemix.cloud.background import in_background
from facemix.cloud.model import CloudModel
from facemix.cloud.repository import Repository
from facemix.wire import open_inference_pb2 as pb

NEVER_LOADED = """
from pathlib import Path
import torch
from facemix.cloud.model import CloudModel

load = CloudModel.__init__

def slowly(self, path, **options):
    if Path(path).name == "slow.safetensors":
        Path("begun").touch()
        image, layer = torch.randn(8, 3, 64, 64), torch.nn.Conv2d(3, 64, 7)
        while True:  # nearly always in the middle of C++
            layer(image)
    load(self, path, **options)

CloudModel.__init__ = slowly
"""


async def test_what_comes_of_it() -> None:
    assert await in_background(lambda: 7) == 7
    with pytest.raises(OSError, match="no"):
        await in_background(lambda: open_nothing())
    with pytest.raises(SystemExit):
        await in_background(lambda: sys.exit(3))


def open_nothing() -> None:
    raise OSError("no")


def test_a_token_is_revoked_while_a_model_loads(tmp_path: Path) -> None:
    tokens, file = tmp_path / "tokens", tmp_path / "1.safetensors"
    tokens.write_text("ada aaa\nbob bbb\n")
    tokens.chmod(0o600)
    file.touch()
    loading, go_on = threading.Event(), threading.Event()
    go_on.set()

    def load(path: Path) -> CloudModel:
        loading.set()
        assert go_on.wait(60)
        return cast(CloudModel, Doubler())

    async def scenario() -> None:
        async with serving(Repository([file], load), tokens=tokens, reload_seconds=0.05) as (server, channel):
            watching = asyncio.create_task(server.watch())
            loading.clear()
            go_on.clear()
            file.write_text("another")
            await until(loading)
            tokens.write_text("ada aaa\n")
            ready = stub_of(channel).ServerReady
            async with asyncio.timeout(20):
                while (
                    await code_of(ready(pb.ServerReadyRequest(), metadata=[("authorization", "Bearer bbb")]))
                    != grpc.StatusCode.UNAUTHENTICATED
                ):
                    await asyncio.sleep(0.02)
            go_on.set()
            watching.cancel()

    try:
        run(scenario())
    finally:
        go_on.set()


def test_a_process_ends_while_a_model_loads(cloud_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("never_loaded.py").write_text(NEVER_LOADED)
    Path("models").mkdir()
    shutil.copy(cloud_file, "models")
    with Cloud("--import", "never_loaded", "--model", "models", "--reload-seconds", "0.1", "--threads", "1") as cloud:
        shutil.copy(cloud_file, "models/slow.safetensors")
        end = time.monotonic() + 30
        while not Path("begun").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        cloud.process.send_signal(signal.SIGTERM)
        assert cloud.wait() == 0
    assert [line["event"] for line in cloud.log] == ["serving", "draining", "stopped"]
