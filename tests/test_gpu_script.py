"""benchmarks/gpu.sh with a Python that does nothing: which commands it runs, and what it says when one fails."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import python

Run = Callable[..., tuple[int, str, list[str]]]
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run(*stages, python=..., **environment)``: the script's exit status, output, and the commands it ran."""
    calls = tmp_path / "calls"

    def run(*stages: str, python: str = "", **environment: str) -> tuple[int, str, list[str]]:
        calls.write_text("")
        stub = tmp_path / "python"
        stub.write_text(f'#!/bin/sh\necho "$FACEMIX_BACKEND $*" | tr "\\n" " " >>{calls}\necho >>{calls}\n{python}\n')
        stub.chmod(0o755)
        clean = {name: value for name, value in os.environ.items() if name not in ("CUDA_HOME", "FACEMIX_BACKEND")}
        changed = clean | {"PYTHON": str(stub), "OUT": str(tmp_path / "out")} | environment
        done = subprocess.run([SCRIPT, *stages], env=changed, capture_output=True, text=True, timeout=60)
        ran = [line.strip() for line in calls.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, ran[1:]  # the first asks for packages and a GPU

    return run


def sanitizer(tmp_path: Path) -> str:
    """A PATH with a compute-sanitizer that runs what it is given."""
    tool = tmp_path / "bin" / "compute-sanitizer"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nshift 8\nexec "$@"\n')
    tool.chmod(0o755)
    return f"{tool.parent}{os.pathsep}{os.environ['PATH']}"


def test_all_stages(run: Run, tmp_path: Path) -> None:
    status, said, ran = run(PATH=sanitizer(tmp_path))
    assert status == 0, said
    assert "== all passed" in said
    stages = [next(word for word in ("pip", "info", "-m small", "-m pytest", "gpu.py", "gpu_table") if word in line)
              for line in ran]  # fmt: skip
    assert stages == ["pip", "info", "-m pytest", "-m small", "-m small", "-m small", "gpu.py", "gpu.py", "gpu_table"]
    assert [line.split()[0] for line in ran[2:8]] == ["native", "triton", "native", "native", "native", "triton"]
    log = (tmp_path / "out" / "gpu.log").read_text()
    assert all(f"== {name}: exit status 0" in log for name in ("build", "test-native", "racecheck", "bench-triton"))


def test_the_tools_of_that_python_come_first(run: Run) -> None:
    """Its CMake builds, not an older one of the system."""
    _, said, _ = run("build", python='case "$1" in -c) echo /its/scripts;; *) echo "PATH=$PATH";; esac')
    assert "PATH=/its/scripts:/" in said


def test_one_stage(run: Run) -> None:
    status, _, ran = run("test")
    assert status == 0
    assert len(ran) == 2


def test_a_failure_is_named_and_what_follows_runs(run: Run) -> None:
    status, said, ran = run("test", "bench", python='case "$*" in *"-m pytest"*) exit 3;; esac')
    assert status == 1
    assert said.splitlines()[-2:] == ["== FAILED: test-native: exit status 3", "== FAILED: test-triton: exit status 3"]
    assert len(ran) == 5


def test_the_races_go_on_where_one_took_its_process_with_it(run: Run) -> None:
    first = 'case "$FACEMIX_BACKEND $*" in *--resume*) exit 1;; native*gpu.py*) exit 139;; esac'
    status, said, ran = run("bench", python=first)
    assert status == 1
    assert [(line.split()[0], "--resume" in line) for line in ran[:-1]] == [
        ("native", False), ("native", True), ("triton", False),
    ]  # fmt: skip
    assert said.splitlines()[-2:] == [
        "== FAILED: bench-native: exit status 139",
        "== FAILED: bench-native: exit status 1",
    ]


HANGS = """
import ctypes
import pytest


@pytest.mark.parametrize("i", range(4))
def test_it(i):
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2 if i == 1 else 1):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def test_a_kernel_that_never_ends_costs_one_test(run: Run, tmp_path: Path) -> None:
    """A wait for the device is none that a signal interrupts: here, for a lock that nobody opens."""
    (tmp_path / "test_hangs.py").write_text(HANGS)
    suite = f'case "$*" in *"-m small"*) ;; *"-m pytest"*) shift 3; cd {tmp_path};'
    suite += f' exec {sys.executable} -m pytest test_hangs.py -p no:cacheprovider "$@" --timeout=3;; esac'
    _, said, _ = run("test", python=suite)
    assert "1 failed, 3 passed" in said
    assert "crashed while running 'test_hangs.py::test_it[1]'" in said


def test_without_a_build_nothing_else_runs(run: Run) -> None:
    status, _, ran = run("build", "test", python='case "$*" in *pip*) exit 1;; esac')
    assert status == 1
    assert len(ran) == 1


@pytest.mark.parametrize(("stage", "tool"), [("sanitize", "compute-sanitizer"), ("profile", "ncu")])
def test_without_the_tool(run: Run, stage: str, tool: str) -> None:
    status, said, ran = run(stage, CUDA_HOME="/nowhere")
    assert status == 1
    assert f"no {tool} on the PATH or in CUDA_HOME/bin" in said
    assert said.splitlines()[-1] == f"== FAILED: {stage}: no {tool}"
    assert ran == []


def test_profile(run: Run, tmp_path: Path) -> None:
    """ncu runs the jobs, and then says what it saw of them."""
    ncu = tmp_path / "cuda" / "bin" / "ncu"
    ncu.parent.mkdir(parents=True)
    ncu.write_text('#!/bin/sh\ncase "$1" in --import) echo "read: $4";; *) shift 13; exec "$@";; esac\n')
    ncu.chmod(0o755)
    status, said, ran = run("profile", CUDA_HOME=str(tmp_path / "cuda"), ONLY="tiny")
    assert status == 0, said
    assert ran == ["native benchmarks/gpu_profile.py --only tiny"]
    assert (tmp_path / "out" / "profile.txt").read_text() == "read: details\n"
    assert gzip.decompress((tmp_path / "out" / "profile.csv.gz").read_bytes()) == b"read: source\n"


def test_without_a_gpu(run: Run) -> None:
    status, said, ran = run("bench", python="exit 1")
    assert status == 1
    assert "PyTorch a GPU that it sees" in said
    assert ran == []


def test_an_unknown_stage(run: Run) -> None:
    status, said, _ = run("benchmark")
    assert status == 2
    assert "a stage must be build, test, triton, sanitize, bench or profile, got benchmark" in said


def test_the_races_are_left_their_time(run: Run) -> None:
    """A build that takes all of its own does not take theirs."""
    for stages, most in ((("build",), 110), (("build", "bench"), 80)):
        (limit,) = re.findall(r"== build, at most (\d+) s", run(*stages, MINUTES="2")[1])
        assert most - 20 < int(limit) <= most


@pytest.mark.parametrize("minutes", ["9.5", "soon", "-1"])
def test_minutes_that_are_none(run: Run, minutes: str) -> None:
    status, said, ran = run("test", MINUTES=minutes)
    assert (status, ran) == (2, [])
    assert said == f"gpu.sh: MINUTES must be a whole number, got {minutes}\n"


def test_without_time(run: Run) -> None:
    status, said, ran = run("test", MINUTES="0")
    assert status == 1
    assert "test-native: no time left" in said
    assert ran == []


def test_what_runs_needs_no_more_than_the_extra(tmp_path: Path) -> None:
    """The suite and the races, without what only our other tests use."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: {re.split(r"\W", line)[0] for line in lines} for extra, lines in extras.items()}
    absent = (names["test"] | names["export"] | names["kserve"]) - names["pipeline"] - names["gpu"]
    assert "hypothesis" in absent
    code = f"""
import sys
sys.modules.update(dict.fromkeys({absent!r}))
import pytest
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import gpu, gpu_table
sys.exit(pytest.main(["-q", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--device=cpu", "--collect-only",
                      {str(ROOT / "tests" / "gpu")!r}]))
"""
    done = python(code, tmp_path, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
