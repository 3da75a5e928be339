"""benchmarks/gpu.py where there is no GPU: its arithmetic, its races on tiny workloads, its table and its chart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gpu
import gpu_contestants
import gpu_profile
import gpu_race
import gpu_table
import pytest
import stand_in_gpu
import torch
from gpu_race import Device, race, roofline
from gpu_workloads import JOBS, TINY_JOBS, Job
from models import Resnet
from workloads import Linear

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
RATES = {"copy": 2e12, "bfloat16": 8e14, "tf32": 4e14, "float32": 5e13}


def job(op: str, workload: str, dtype: str) -> Job:
    (found,) = [job for job in JOBS if job.key == f"{op} {workload} {dtype}"]
    return found


def entry(backend: str, **changes: Any) -> dict[str, Any]:
    """A made-up result of three rounds."""
    seconds = {"facemix": [1e-3, 2e-3, 4e-3], "eager": [4e-3, 6e-3, 20e-3]}
    return {
        "op": "conv_mix", "workload": "made-up", "dtype": "bfloat16", "backend": backend, "flop": 1, "bytes": 1,
        "floor": 1e-3, "seconds": seconds, "state": {name: {"SM, MHz": 1980.0} for name in seconds},
    } | changes  # fmt: skip


def made_up(*results: dict[str, Any]) -> dict[str, Any]:
    run = {"backend": "native", "rounds": 3, "roofline": {"rates": RATES}, "left_out": ["one"], "failed": []}
    return {"date": "2000-01-01", "commit": "0123456789", "machine": {"name": "a card"}, "runs": [run],
            "versions": {"torch": "2", "triton": "3", "cuda": "13"}, "results": list(results)}  # fmt: skip


def test_the_workloads_are_those_of_the_goals() -> None:
    names = {job.work.name for job in JOBS}
    assert {"resnet-stem 256x224x224 pool", "resnet-stem 64x218x178", "vgg-conv1 64x224x224", "cifar-conv1 1024x32x32",
            "256x64x112x112", "256x512-80", "16384x512-80"} <= names  # fmt: skip
    assert len(JOBS) == 2 * 2 * 13
    assert len({job.key for job in JOBS}) == len(JOBS)


def test_a_profiler_sees_every_job_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_profile.py", "--device", "cpu", "--only", "bfloat16"])
    gpu_profile.main()
    assert capsys.readouterr().out.split("\n")[:-1] == [job.key for job in TINY_JOBS if job.dtype == "bfloat16"]
    monkeypatch.setattr(sys, "argv", ["gpu_profile.py", "--device", "cpu", "--only", "nobody"])
    with pytest.raises(SystemExit):
        gpu_profile.main()
    assert "must be in the name of a job, got 'nobody'" in capsys.readouterr().err


def test_work_is_counted_as_by_hand() -> None:
    stem = job("conv_mix", "resnet-stem 256x224x224", "bfloat16")
    written = 256 * 64 * 112 * 112
    assert stem.bytes == 2 * (256 * 3 * 224 * 224 + 64 * (3 * 49 + 1) + written)
    assert stem.counted.flop == 2 * written * (3 * 49 + 8)
    assert stem.floor(RATES) == stem.bytes / RATES["copy"]
    assert job("conv_mix", "resnet-stem 256x224x224", "float32").floor(RATES) == 2 * stem.bytes / RATES["copy"]
    backward = job("unmix_linear backward", "256x512-80", "float32")
    assert backward.counted.flop == 4 * 256 * 512 * 80 + 2 * 8 * 256 * 80
    assert backward.bytes == 4 * (2 * 256 * 512 + 2 * 513 * 80 + 256 * 80)
    assert Job("", Linear("", 1 << 20), "float32").floor(RATES) > Job("", Linear("", 1 << 20), "bfloat16").floor(RATES)


def test_ratios_and_parts() -> None:
    row = gpu_table.cells({"native": entry("native")})
    assert row["native, ms"] == "2"
    assert row["native, of the roofline"] == "50%"
    assert row["eager takes"] == "4.00x (3.50 to 4.50)"  # of 4, 3 and 5
    triton = entry("triton", seconds={"facemix": [2e-3] * 3, "eager": [4e-3] * 3})
    assert gpu_table.cells({"native": entry("native"), "triton": triton})["Triton takes"] == "2.00x"
    section = gpu_table.section(made_up(entry("native"), triton))
    assert "a copy moves 2.00 TB/s" in section
    assert "Left out for want of time: 1 races" in section
    assert "| `conv_mix` made-up, bfloat16 | 2 | 50% |" in section


@pytest.mark.parametrize("job", TINY_JOBS, ids=lambda job: job.key)
def test_everybody_computes_the_same(job: Job) -> None:
    runs = gpu_contestants.runs(job, torch.device("cpu"), {"facemix", "eager"})
    raced = race(Device("cpu"), runs, 2)
    assert "facemix" in raced["seconds"]
    assert any(name.startswith("eager") for name in raced["seconds"])
    assert all(len(times) == 2 and min(times) > 0 for times in raced["seconds"].values())


def test_a_contestant_that_computes_something_else_is_named() -> None:
    expected = torch.randn(8, 5)
    with pytest.raises(AssertionError, match="group_mix tiny bfloat16: liar disagrees by"):
        gpu_contestants.check(TINY_JOBS[0], {"liar": expected + 0.1 * expected.abs().max()}, expected)
    with pytest.raises(AssertionError, match="liar disagrees by nan"):
        gpu_contestants.check(TINY_JOBS[0], {"liar": expected * float("nan")}, expected)


def test_no_convolution_is_searched_for_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with gpu_contestants.exactly():
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark


def test_the_limits_of_the_machine() -> None:
    found = roofline(Device("cpu"), 2)
    assert set(found["rates"]) == {"copy", "bfloat16", "tf32", "float32"}
    assert all(rate > 0 for rate in found["rates"].values())


def test_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One command, one file: what it holds of another backend stays, what there was no time for is named."""
    path = tmp_path / "gpu.json"
    path.write_text(json.dumps(made_up(entry("triton")) | {"runs": [made_up()["runs"][0] | {"backend": "triton"}]}))
    monkeypatch.setattr(gpu, "COMPILE_SECONDS", 1e9)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    command = ["gpu.py", "--device", "cpu", "--json", str(path), "--rounds", "1", "--only", "mix tiny float32"]
    monkeypatch.setattr(sys, "argv", command)
    assert gpu.main() == 0
    data = json.loads(path.read_text())
    assert [run["backend"] for run in data["runs"]] == ["triton", "native"]
    assert data["runs"][1]["left_out"][0] == "group_mix tiny float32: compile, eager, facemix"
    assert {(e["op"], e["backend"]) for e in data["results"]} == {
        ("conv_mix", "triton"), ("conv_mix", "native"), ("group_mix", "native"), ("group_unmix", "native"),
    }  # fmt: skip
    assert "left out, native: conv_mix tiny float32" in capsys.readouterr().out
    gpu_table.draw(data, tmp_path / "gpu.png")
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("told", [True, False])
def test_the_whole_on_a_stand_in(told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, events, graphs, and sensors that tell or do not; the training step is not captured."""
    stand_in_gpu.install(monkeypatch, told)
    monkeypatch.setattr(gpu, "JOBS", TINY_JOBS)
    monkeypatch.setattr(gpu, "build", lambda *_: Resnet())
    step = gpu_contestants.training
    monkeypatch.setattr(gpu, "training", lambda model, batch, size, device: step(model, 8, 32, device))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    path = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", str(path), "--rounds", "2", "--who", "facemix", "eager"])
    before = stand_in_gpu.Graph.replays
    assert gpu.main() == 0
    assert stand_in_gpu.Graph.replays > before
    data = json.loads(path.read_text())
    assert data["machine"]["name"] == "a card"
    assert ("driver" in data["machine"]) == told
    (run,) = data["runs"]
    assert (run["left_out"], run["failed"]) == ([], [])
    assert len(data["results"]) == len(TINY_JOBS) + 1
    for raced in data["results"]:
        assert set(raced["seconds"]) == set(raced["state"])
        for state in raced["state"].values():
            assert state == (
                {"SM, MHz": 1980, "memory, MHz": 2619, "power, W": 350, "temperature, C": 45} if told else {}
            )
    assert "| `training step` resnet18 256x224x224, bfloat16 autocast |" in gpu_table.section(data)
    gpu_table.draw(data, tmp_path / "gpu.png")


def test_what_fails_is_named_and_the_rest_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever it raises: Triton's compiler has errors of its own. What ran before is in the file already."""
    bench = gpu.Bench(Device("cpu"), 1, 60, tmp_path / "gpu.json")
    works = gpu.runs

    class OutOfResources(Exception):
        pass

    def broken(job: Job, *rest: Any) -> Any:
        if job.op == "unmix_linear":
            raise OutOfResources("shared memory, Required: 300000\nand more")
        return works(job, *rest)

    monkeypatch.setattr(gpu, "runs", broken)
    bench.run(TINY_JOBS[:3], {"facemix"}, False)
    data = json.loads(bench.path.read_text())
    assert data["runs"][0]["failed"] == [
        "unmix_linear tiny bfloat16: facemix: OutOfResources: shared memory, Required: 300000"
    ]
    assert [entry["op"] for entry in data["results"]] == ["group_mix", "conv_mix"]


def test_what_is_cut_off_loses_its_last_race(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = gpu.Bench(Device("cpu"), 1, 60, tmp_path / "gpu.json")
    race = gpu.race

    def stopped(*args: Any, **options: Any) -> Any:
        if bench.results:
            raise KeyboardInterrupt
        return race(*args, **options)

    monkeypatch.setattr(gpu, "race", stopped)
    with pytest.raises(KeyboardInterrupt):
        bench.run(TINY_JOBS, {"facemix", "eager"}, False)
    data = json.loads(bench.path.read_text())
    assert [entry["op"] for entry in data["results"]] == ["group_mix"]
    assert "group_mix tiny" in gpu_table.text(data)


@pytest.mark.parametrize("end", ["context", "kernel"])
def test_a_race_that_takes_its_process_along_costs_itself(end: str, tmp_path: Path) -> None:
    """A CUDA context that is lost, or a kernel that never ends: another process runs the rest."""
    code = f"""
import ctypes, sys
sys.path[:0] = {[str(path) for path in (BENCHMARKS, BENCHMARKS.parent, BENCHMARKS.parent / "python")]!r}
import gpu, gpu_race
def lost(job, *rest):
    if job.op != "unmix_linear":
        return works(job, *rest)
    if {end!r} == "context":
        gpu_race.Device.lost = lambda self: True
        raise RuntimeError("an illegal memory access was encountered")
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
gpu.EAGER_SECONDS, gpu.HUNG_SECONDS = 0, 8
gpu.TINY_JOBS = gpu.TINY_JOBS[:3]
works, gpu.runs = gpu.runs, lost
sys.exit(gpu.main())
"""
    command = ["--device", "cpu", "--json", str(tmp_path / "gpu.json"), "--rounds", "1", "--who", "facemix", "eager",
               "--only", "bfloat16"]  # fmt: skip
    why = {
        "context": "RuntimeError: an illegal memory access was encountered",
        "kernel": "its process ended before it did",
    }[end]
    for status, resume, known in ((gpu.LOST, [], ["group_mix"]), (1, ["--resume"], ["group_mix", "conv_mix"])):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, *resume], capture_output=True, text=True, timeout=100
        )
        assert done.returncode == status, done.stderr
        data = json.loads((tmp_path / "gpu.json").read_text())
        assert data["runs"][0]["failed"] == [f"unmix_linear tiny bfloat16: eager, facemix: {why}"]
        assert [entry["op"] for entry in data["results"]] == known
    assert "group_mix tiny" not in done.stdout.split("copy moves")[0]  # it was not raced again


def test_the_key_is_multiplied_in_tf32_behind_a_convolution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By the peers as by our op, while they are captured; what they found is as it was afterwards."""
    allowed = {}

    def seen(job: Job, *_: Any) -> Any:
        allowed[job.op] = torch.backends.cuda.matmul.allow_tf32
        raise RuntimeError("seen")

    monkeypatch.setattr(gpu, "runs", seen)
    gpu.Bench(Device("cpu"), 1, 60, tmp_path / "gpu.json").run(TINY_JOBS[:3], {"facemix"}, False)
    assert allowed == {"group_mix": False, "unmix_linear": False, "conv_mix": True}
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(("found", "said"), [("", "0123"), ("4567\n", "4567")])
def test_a_tree_without_git_is_told_its_commit(found: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 0, found if command[1] == "rev-parse" else "", "")

    monkeypatch.setattr(gpu.subprocess, "run", git)
    monkeypatch.setenv("COMMIT", "0123")
    assert gpu.provenance()["commit"] == said


def test_a_training_step() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 10))
    before = model[2].weight.clone()
    gpu_contestants.training(model, 4, 8, torch.device("cpu"))()
    assert not torch.equal(model[2].weight, before)


def test_nobody_is_raced_without_us(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Table and chart compare with us."""
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--json", "never.json", "--who", "eager", "compile"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "--who must name facemix, which table and chart compare with, got eager compile" in capsys.readouterr().err


def test_a_file_without_peers_is_read(tmp_path: Path) -> None:
    alone = {"seconds": {"facemix": [1e-3] * 3}, "state": {"facemix": {}}}
    data = made_up(entry("native", **alone), entry("triton", **alone))
    assert "| `conv_mix` made-up, bfloat16 | 1 | 100% | 1 | 100% |" in gpu_table.section(data)
    gpu_table.draw(data, tmp_path / "gpu.png")


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--json", "never.json"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "sees no GPU" in capsys.readouterr().err


class Counted:
    """A device on which a call takes 50 us, or 200 us where it is launched by itself."""

    alone = 2e-4

    def seconds(self, run: Any, repeats: int) -> float:
        return 5e-5 * run if isinstance(run, Calls) else self.alone

    def measured(self, run: Any, repeats: int) -> tuple[float, dict[str, float]]:
        return self.seconds(run, repeats), {"SM, MHz": 1980}

    def graph(self, run: Any, calls: int) -> Any:
        return Calls(calls)


class Calls(int):
    """A graph of so many."""

    def __call__(self) -> None:
        pass


def test_seconds_are_of_one_call_of_a_graph() -> None:
    """As many as make it long enough, by what a call takes in a graph."""
    contestant = gpu_race.Contestant(Counted(), lambda: None)
    contestant.measure()
    assert (contestant.calls, contestant.seconds) == (4, [5e-5])
    assert contestant.state == {"SM, MHz": [1980]}


def test_what_is_not_captured_runs_several_times_in_a_row() -> None:
    """A step that waits for the card between its parts must not begin on an idle one each time."""
    device = Counted()
    device.alone = 0.05
    assert gpu_race.Contestant(device, lambda: None, capture=False).repeats == gpu_race.LEAST_RUNS


def test_what_fits_the_cache_has_no_roofline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = gpu_race.Device("cpu")
    jobs = [job for job in TINY_JOBS if job.op == "group_mix"]
    device.cache = max(job.bytes for job in jobs)
    bench = gpu.Bench(device, 1, 60, tmp_path / "gpu.json")
    bench.run(jobs, {"facemix", "eager"}, train=False)
    data = bench.save()
    assert len(data["results"]) == len(jobs) > 0
    assert not any("floor" in entry for entry in data["results"])
    assert "of the roofline" not in gpu_table.text(data)
    gpu_table.draw(data, tmp_path / "gpu.png")
    assert not (tmp_path / "gpu.png").exists()
