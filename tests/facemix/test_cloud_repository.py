"""Models by name and version, and files that come, change and go while the cloud serves them."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import pytest
import torch
from cloud_server import Doubler, answer, code_of, message, repository, rows, run, serving, stub_of, until, waiting
from facemix.cloud.model import CloudModel
from facemix.cloud.refusal import Refusal
from facemix.cloud.repository import Repository
from facemix.storage import load_tensors, save_tensors
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import NETWORK


def put(path: Path, cloud_file: Path, **config: object) -> Path:
    """A cloud part like `cloud_file`, under another name or version."""
    tensors, original = load_tensors(cloud_file)
    save_tensors(path, tensors, {**original, **config})
    return path


def look_twice(models: Repository) -> list[bool]:
    """A change is seen at the first look, and loaded at the second."""
    return [models.refresh(), models.refresh()]


def names(models: Repository) -> list[tuple[str, int]]:
    return [(model.name, model.version) for model in models.models]


def test_names_and_versions(cloud_file: Path, tmp_path: Path) -> None:
    for file, name, version in (("a", "one", 2), ("b", "one", 10), ("c", "two", 1)):
        put(tmp_path / f"{file}.safetensors", cloud_file, name=name, version=version)
    (tmp_path / ".hidden.safetensors").write_text("being written")
    (tmp_path / "README").write_text("not a model")
    models = Repository([tmp_path, cloud_file], CloudModel)
    assert names(models) == [("middle", 1), ("one", 2), ("one", 10), ("two", 1)]
    assert models.versions("one") == [2, 10]
    assert models.versions("three") == []
    assert [models.find("one", version).version for version in ("", "2", "10")] == [10, 2, 10]
    for name, version in (("three", ""), ("one", "3"), ("one", "02"), ("one", "x"), ("", "")):
        with pytest.raises(Refusal, match=f"got '{name}' version '{version}'") as caught:
            models.find(name, version)
        assert caught.value.code == grpc.StatusCode.NOT_FOUND


def test_files_come_change_and_go(cloud_file: Path, tmp_path: Path) -> None:
    put(tmp_path / "1.safetensors", cloud_file)
    models = Repository([tmp_path], CloudModel)
    old = models.find("middle", "")
    assert look_twice(models) == [False, False]
    assert models.find("middle", "") is old

    put(tmp_path / "2.safetensors", cloud_file, version=2)
    assert look_twice(models) == [False, True]
    assert names(models) == [("middle", 1), ("middle", 2)]
    assert models.find("middle", "1") is old

    put(tmp_path / "1.safetensors", cloud_file, network="f" * 32)
    assert look_twice(models) == [False, True]
    assert models.find("middle", "1").network == "f" * 32

    (tmp_path / "2.safetensors").unlink()
    assert look_twice(models) == [True, False]
    assert names(models) == [("middle", 1)]

    (tmp_path / "1.safetensors").unlink()
    models.refresh()
    assert names(models) == []
    put(tmp_path / "1.safetensors", cloud_file, version=3)
    look_twice(models)
    assert names(models) == [("middle", 3)]


def test_a_bad_file_leaves_what_was(cloud_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(tmp_path / "1.safetensors", cloud_file)
    models = Repository([path], CloudModel)
    old = models.find("middle", "")
    whole = path.read_bytes()
    nameless = put(tmp_path / "other", cloud_file, name=None).read_bytes()
    for bad in (whole[: len(whole) // 2], b"", b"nonsense" * 100, nameless):
        path.write_bytes(bad)  # in place: the model in memory must not be a view of the file
        caplog.clear()
        assert look_twice(models) == [False, False]
        assert models.find("middle", "") is old
        assert [record.message for record in caplog.records] == ["reload refused"]
        assert not look_twice(models)[1]  # and is not tried again, nor logged
        assert len(caplog.records) == 1
    assert old.run(torch.randn(2, 8, 8, 8).numpy()).shape == (2, 64)
    path.write_bytes(whole)
    assert look_twice(models) == [False, True]
    assert models.find("middle", "") is not old


def test_a_file_that_is_being_written_is_left_alone(cloud_file: Path, tmp_path: Path) -> None:
    loaded = []

    def load(path: Path) -> CloudModel:
        loaded.append(path.name)
        return CloudModel(path)

    models = (
        Repository([cloud_file, tmp_path], load) if put(tmp_path / "2.safetensors", cloud_file, version=2) else None
    )
    assert models is not None
    whole = cloud_file.read_bytes()
    for size in range(0, len(whole), len(whole) // 5):
        (tmp_path / "3.safetensors").write_bytes(whole[:size])
        assert not models.refresh()
    assert "3.safetensors" not in loaded


def test_a_name_and_version_comes_from_one_file(
    cloud_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "1.safetensors", cloud_file)
    models = Repository([tmp_path], CloudModel)
    old = models.find("middle", "")
    put(tmp_path / "0.safetensors", cloud_file)
    assert look_twice(models) == [False, False]
    assert models.find("middle", "") is old
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "each name and version must come from one file, got 'middle' version 1 in" in vars(record)["error"]
    with pytest.raises(ValueError, match="--model must name each name and version once, got 'middle' version 1 in"):
        Repository([tmp_path], CloudModel)


def test_a_file_is_taken_once_the_other_of_its_name_is_gone(
    cloud_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[str] = []

    def load(path: Path) -> CloudModel:
        loaded.append(path.name)
        return CloudModel(path)

    put(tmp_path / "1.safetensors", cloud_file)
    models = Repository([tmp_path], load)
    put(tmp_path / "2.safetensors", cloud_file, network="f" * 32)
    assert [*look_twice(models), *look_twice(models)] == [False] * 4
    assert loaded == ["1.safetensors", "2.safetensors"]  # and not at every look
    assert len(caplog.records) == 1
    (tmp_path / "1.safetensors").unlink()
    look_twice(models)
    assert models.find("middle", "").network == "f" * 32


def test_a_disk_that_failed_is_tried_again(cloud_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = []

    def load(path: Path) -> CloudModel:
        if faults:
            raise faults.pop()
        return CloudModel(path)

    models = Repository([put(tmp_path / "1.safetensors", cloud_file)], load)
    put(tmp_path / "1.safetensors", cloud_file, network="f" * 32)
    faults += [OSError(5, "Input/output error") for _ in range(3)]
    assert [*look_twice(models), *look_twice(models), *look_twice(models)] == [False, False, False, False, True, False]
    assert [vars(record)["error"] for record in caplog.records] == ["OSError: [Errno 5] Input/output error"]
    assert models.find("middle", "").network == "f" * 32


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--model must be a file or a folder, got .*nothing"):
        Repository([tmp_path / "nothing"], CloudModel)
    with pytest.raises(FileNotFoundError, match=r"--model must hold \*.safetensors files where it is a folder"):
        Repository([tmp_path], CloudModel)


def test_requests_finish_on_the_model_they_began_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        old, new = Doubler(version=1, network="a" * 32), Doubler(version=1, network="b" * 32)
        served = {"model": old}
        file = tmp_path / "1.safetensors"
        file.write_text("old")
        models = Repository([file], lambda path: cast(CloudModel, served["model"]))
        old.gate.clear()
        async with serving(models) as (server, channel):
            stub = stub_of(channel)
            calls = [asyncio.ensure_future(stub.ModelInfer(message(rows(1))))]
            await until(old.started)
            calls.append(asyncio.ensure_future(stub.ModelInfer(message(rows(2)))))
            await waiting(server, 1)
            served["model"] = new
            file.write_text("new, and longer")
            assert await asyncio.to_thread(look_twice, models) == [False, True]
            calls.append(asyncio.ensure_future(stub.ModelInfer(message(rows(3)))))
            await waiting(server, 2)
            old.gate.set()
            networks = [(await call).parameters[NETWORK].string_param[0] for call in calls]
        assert networks == ["a", "a", "b"]
        assert [len(batch) for batch in old.batches + new.batches] == [1, 2, 3]

    run(scenario())


def test_the_server_tells_of_versions_that_come_and_of_having_none(cloud_file: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        models = Repository([put(tmp_path / "1.safetensors", cloud_file).parent], CloudModel)
        async with serving(models, reload_seconds=0.1) as (server, channel):
            stub = stub_of(channel)
            watching = asyncio.create_task(server.watch())
            put(tmp_path / "2.safetensors", cloud_file, version=2)
            while not (await stub.ModelReady(pb.ModelReadyRequest(name="middle", version="2"))).ready:
                await asyncio.sleep(0.05)
            metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="middle"))
            assert list(metadata.versions) == ["1", "2"]
            request = message(torch.randn(2, 8, 8, 8).numpy(), version="1")
            assert (await stub.ModelInfer(request)).model_version == "1"
            request.model_version = ""
            assert (await stub.ModelInfer(request)).model_version == "2"

            shutil.rmtree(tmp_path)
            while (await stub.ServerReady(pb.ServerReadyRequest())).ready:
                await asyncio.sleep(0.05)
            assert await code_of(stub.ModelInfer(request)) == grpc.StatusCode.NOT_FOUND
            watching.cancel()

    run(scenario())


def test_metadata_of_one_version(tmp_path: Path) -> None:
    async def scenario() -> None:
        models = repository([Doubler(version=1, network="a" * 32), Doubler(version=2, network="b" * 32)], tmp_path)
        async with serving(models) as (_, channel):
            for version, network in (("", "b"), ("1", "a"), ("2", "b")):
                request = pb.ModelMetadataRequest(name="middle", version=version)
                metadata = await stub_of(channel).ModelMetadata(request)
                assert metadata.properties[NETWORK] == network * 32
                assert metadata.properties["datatypes"] == "FP32,FP16,BF16,INT8"
                assert list(metadata.versions) == ["1", "2"]
            reply = await stub_of(channel).ModelInfer(message(rows(1), version="1"))
            assert (answer(reply).tolist(), reply.model_version) == ([[2.0] * 4], "1")

    run(scenario())


def test_a_file_that_changes_while_it_is_loaded_is_not_taken(cloud_file: Path, tmp_path: Path) -> None:
    path, writers = put(tmp_path / "1.safetensors", cloud_file), []

    def load(path: Path) -> CloudModel:
        model = CloudModel(path)
        if writers:
            writers.pop()()
        return model

    models = Repository([path], load)
    old = models.find("middle", "")
    put(path, cloud_file, network="e" * 32)
    writers.append(lambda: put(path, cloud_file, network="f" * 32))
    assert look_twice(models) == [False, False]
    assert models.find("middle", "") is old
    assert look_twice(models) == [False, True]
    assert models.find("middle", "").network == "f" * 32


@pytest.mark.parametrize("fault", ["away", "exit"])
def test_a_fault_that_passes_while_a_file_is_loaded(fault: str, cloud_file: Path, tmp_path: Path) -> None:
    """It was away for that moment; or a network's code ended the program."""
    path, away = put(tmp_path / "1.safetensors", cloud_file), tmp_path / "away"
    faults: list[Callable[[], object]] = []

    def load(path: Path) -> CloudModel:
        model = CloudModel(path)
        if faults:
            faults.pop()()
        return model

    models = Repository([path], load)
    put(path, cloud_file, network="e" * 32)
    faults.append(lambda: sys.exit(3) if fault == "exit" else path.rename(away))
    assert look_twice(models) == [False, False]
    if fault == "away":
        away.rename(path)
    assert models.refresh()
    assert models.find("middle", "").network == "e" * 32


def test_another_file_of_the_same_size_and_time_is_seen(cloud_file: Path, tmp_path: Path) -> None:
    path = put(tmp_path / "1.safetensors", cloud_file, network="e" * 32)
    models, status = Repository([path], CloudModel), path.stat()
    other = put(tmp_path / "other", cloud_file, network="f" * 32)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.replace(path)
    assert look_twice(models) == [False, True]
