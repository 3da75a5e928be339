"""The sweep, with a training that takes no time in the place of the real one."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments import results, save
from facemix.cli import main
from facemix.commands.train import experiment_parser, read_experiment
from facemix.sweep import Job, Plan, run_sweep
from facemix.sweep.jobs import devices, slots
from facemix.sweep.run import write_figures
from facemix.training.settings import Experiment, MixSettings
from matplotlib.figure import Figure

FAKE = Path(__file__).parents[1] / "helpers" / "fake_train.py"
real_command = Plan.command


def fake_command(plan: Plan, job: Job) -> list[str]:
    """The real command line, but for the program."""
    line = real_command(plan, job)
    assert line[:3] == [sys.executable, "-m", "facemix"]
    return [sys.executable, str(FAKE), *line[3:]]


@pytest.fixture(autouse=True)
def _fake_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "command", fake_command)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def plan(out: Path, **changes: Any) -> Plan:
    values = {
        "recipe": "orl",
        "options": (),
        "experiment": Experiment(),
        "group_sizes": (1, 2),
        "pre": (1, 2),
        "seeds": 2,
    }
    return Plan(**{**values, "out": out, **changes})


def calls(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "calls").read_text().splitlines()]


def started(out: Path) -> list[tuple[str, int]]:
    return [(call["row"], call["seed"]) for call in calls(out)]


def lines(out: Path) -> list[dict[str, str]]:
    with (out / "sweep.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_command_line(tmp_path: Path) -> None:
    asked = plan(tmp_path, options=("--mixed.epochs", "3"))
    folders = ["--baselines", str(tmp_path / "baselines")]
    assert real_command(asked, Job(2, 4, 1))[1:] == [
        *["-m", "facemix", "train", "orl", "--out", str(tmp_path / "pre-2-group-4"), *folders],
        *["--first-seed", "1", "--seeds", "1", "--mixed.epochs", "3", "--mix.group_size", "4", "--model.pre", "2"],
    ]
    baseline = real_command(asked, Job(None, 1, 0))
    assert str(tmp_path / "group-1") in baseline
    assert "--model.pre" not in baseline
    assert [job.row for job in plan(tmp_path, group_sizes=(4, 2), pre=(2, 1), seeds=1).mixed] == [
        *["pre-1-group-2", "pre-1-group-4", "pre-2-group-2", "pre-2-group-4"],
    ]


def test_smaller_groups_take_what_suits_them(tmp_path: Path) -> None:
    mix = MixSettings(group_size=8, max_coeff=0.7, warm_up=[1, 4])
    asked = plan(tmp_path, experiment=Experiment(mix=mix))
    options = {size: real_command(asked, Job(1, size, 0))[15:-2] for size in (2, 4, 8, 6)}
    assert options[8] == []
    assert options[4] == ["--mix.max_coeff", "null"]
    assert options[2] == options[6] == ["--mix.max_coeff", "null", "--mix.warm_up", "[1]"]
    # And train takes them.
    _, experiment = read_experiment(experiment_parser("facemix train", ""), ["orl", *options[2]])
    assert (experiment.mix.max_coeff, experiment.mix.warm_up) == (None, [1])


def test_from_nothing_to_figures_and_once_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep"
    rows, whole = ["--group-sizes", "2", "4", "--pre", "1", "2"], ["--seeds", "2", "--out", str(out), "--jobs", "2"]
    arguments = ["sweep", "orl", *rows, "--mixed.epochs", "3", *whole, "--data.augment.mirror=true", "--import", "json"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"sweep: {out / 'sweep.md'}\n"
    everything = started(out)
    assert sorted(everything) == sorted(
        (row, seed)
        for row in ("group-1", "pre-1-group-2", "pre-1-group-4", "pre-2-group-2", "pre-2-group-4")
        for seed in (0, 1)
    )
    assert {row for row, _ in everything[:2]} == {"group-1"}  # all others start from these
    others = ["--import=json", "--mixed.epochs", "3", "--data.augment.mirror=true"]
    others += ["--mix.max_coeff", "null"]  # the bound is for S = 8
    assert all(call["others"] == others for call in calls(out))

    found = lines(out)
    assert [(line["pre"], line["group_size"], line["seed"]) for line in found[:4]] == [
        *[("", "1", "0"), ("", "1", "1"), ("1", "2", "0"), ("1", "2", "1")],
    ]
    assert len(found) == 10
    last = found[-1]
    assert float(last["accuracy"]) == pytest.approx(0.8 + 0.04 - 0.04 + 0.01)
    assert float(last["linear_cloud"]) == pytest.approx(0.51)
    assert float(last["collapsed"]) == pytest.approx(0.41)
    assert (last["edge_multiply_adds"], last["whole_multiply_adds"]) == ("20000000", "100000000")
    assert (last["recovered"], found[0]["edge_multiply_adds"], found[0]["linear_cloud"]) == ("", "", "")
    text = (out / "sweep.md").read_text()
    mixed = "| N_pre = 2, S = 4 | 2 | 80.5 ± 0.7 % | 12.0 ± 0.0 | 92.5 ± 0.7 % | 50.5 ± 0.7 % | 40.5 ± 0.7 % |"
    assert f"{mixed} not measured | 20.00 M |" in text
    assert text.endswith(" Lost: against the longer baseline.\n")
    assert "| baseline, no mix | 2 | 90.5 ± 0.7 % |  | 92.5 ± 0.7 % |  |  |  | 100.00 M | 100.0 % |" in text
    for name in ("figure4a.png", "figure4b.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")

    # The same again trains nothing; another seed trains what is missing; another recipe is refused.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed-*/results.json")}
    assert main(arguments) == 0
    assert started(out) == everything
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(["sweep", "orl", *rows, "--mixed.epochs", "4", *whole]) == 1
    error = capsys.readouterr().err
    assert "must be new, or of a sweep with the same settings" in error
    assert "whose mixed.epochs differ (mixed.epochs: 3, then 4) (see " in error
    assert started(out) == everything
    # What decides no figure may be another.
    assert main([*arguments, "--data.workers", "1", "--data.cache", str(tmp_path), "--trainer={devices: 1}"]) == 0
    assert started(out) == everything
    capsys.readouterr()
    for text, message in (
        ("{", "must be JSON, a dict, got JSONDecodeError"),
        ("{}", "must be a sweep's, got KeyError"),
    ):
        (out / "sweep.json").write_text(text)
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert f"sweep: {out / 'sweep.json'} {message}" in error
        assert error.endswith(f": take another --out, or remove {out / 'sweep.json'}\n")


def test_failures_are_listed_and_stop_what_needs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "fail:group-1/seed-1 fail:pre-2-group-2/seed-0")
    arguments = ["sweep", "orl", "--group-sizes", "2", "--pre", "1", "2", "--seeds", "2", "--out", str(tmp_path)]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    log = tmp_path / "group-1" / "seed-1.log"
    assert f"facemix: error: sweep: group-1, seed 1: exit status 3: no such photographs ({log})\n" in error
    assert "facemix: error: sweep: pre-2-group-2, seed 0: exit status 3: no such photographs" in error
    assert "facemix: error: sweep: pre-1-group-2, seed 1: not run: the baseline of its seed failed\n" in error
    assert started(tmp_path) == [("group-1", 0), ("group-1", 1), ("pre-1-group-2", 0), ("pre-2-group-2", 0)]
    assert [(line["group_size"], line["seed"]) for line in lines(tmp_path)] == [("1", "0"), ("2", "0")]
    # With the cause gone, only what failed is run.
    monkeypatch.delenv("FAKE_TRAIN")
    assert main(arguments) == 0
    assert started(tmp_path)[4:] == [("group-1", 1), ("pre-2-group-2", 0), ("pre-1-group-2", 1), ("pre-2-group-2", 1)]
    assert len(lines(tmp_path)) == 6


def test_no_table_is_named_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_TRAIN", "fail:group-1/seed-0")
    assert main(["sweep", "orl", "--group-sizes", "2", "--pre", "1", "--seeds", "1", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().out == ""


SMALL: dict[str, Any] = {"group_sizes": (2,), "pre": (1,), "seeds": 1}


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A sweep into `tmp_path` in a process of its own, and the process id of its last job, which takes a minute."""
    script = (
        "import sys; from pathlib import Path; import test_sweep as t\n"
        "t.Plan.command = t.fake_command; t.run_sweep(t.plan(Path(sys.argv[1]), **t.SMALL))"
    )
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(FAKE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "FAKE_TRAIN": "hang:pre-1-group-2/seed-0", "PYTHONPATH": path}
    note = tmp_path / "pre-1-group-2" / "hanging"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment) as sweep:
        while not (note.is_file() and note.read_text()):
            assert sweep.poll() is None
            time.sleep(0.02)
        yield sweep, int(note.read_text())
        sweep.kill()


def test_goes_on_after_a_kill_but_not_beside_a_job_that_outlived_it(
    tmp_path: Path, hanging: tuple[subprocess.Popen[bytes], int]
) -> None:
    sweep, job = hanging
    sweep.kill()
    sweep.wait()
    try:
        with pytest.raises(ValueError, match="must not be in use by another sweep or its jobs"):
            run_sweep(plan(tmp_path, **SMALL))
    finally:
        os.kill(job, signal.SIGKILL)
    while True:  # the lock goes with the process
        try:
            assert run_sweep(plan(tmp_path, **SMALL)) == {}
            break
        except ValueError:
            time.sleep(0.02)
    assert started(tmp_path) == [("group-1", 0), ("pre-1-group-2", 0), ("pre-1-group-2", 0)]


def test_an_interrupt_ends_the_jobs(tmp_path: Path, hanging: tuple[subprocess.Popen[bytes], int]) -> None:
    sweep, job = hanging
    sweep.send_signal(signal.SIGINT)
    assert sweep.wait() != 0
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)
    assert len(lines(tmp_path)) == 1
    assert (tmp_path / "figure4b.png").is_file()


@pytest.mark.parametrize("audited", [False, True])
def test_plots(audited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = plan(tmp_path, group_sizes=(2, 4))
    for job in (*asked.baselines, *asked.mixed):
        mixed = {} if job.pre is None else {"mixing_aware": 0.8 + 0.02 * job.pre - 0.01 * job.group_size}
        baselines = {"baseline": 0.88, "baseline_longer": 0.9}
        values = results(job.seed, {**baselines, **mixed}, group_size=job.group_size, pre=job.pre or 1)
        privacy = {"privacy": {"answer": "recovered", "recovered": 1 / job.group_size}} if audited else {}
        save(tmp_path / job.row, {**values, **privacy})
    figures: dict[str, Any] = {}

    def keep(figure: Figure, path: Path, **options: Any) -> None:
        figures[figure.axes[0].get_title()] = figure.axes[0]

    monkeypatch.setattr(Figure, "savefig", keep)
    write_figures(asked)
    for axes in figures.values():
        assert axes.get_lines()[0].get_ydata()[0] == pytest.approx(0.905)  # the longer baseline
    privacy, efficiency = figures["Accuracy against privacy"], figures["Accuracy against efficiency"]
    assert ("not measured" in privacy.get_xlabel()) is not audited
    assert [container.get_label() for container in privacy.containers] == ["N_pre = 1", "N_pre = 2"]
    assert [container.get_label() for container in efficiency.containers] == ["S = 2", "S = 4"]
    line, _, (bars,) = privacy.containers[1]
    assert line.get_xydata() == pytest.approx(
        np.array([[0.25, 0.805], [0.5, 0.825]] if audited else [[2, 0.825], [4, 0.805]])
    )
    deviation = 0.005 * 2**0.5
    assert bars.get_segments()[0][:, 1] == pytest.approx(
        [line.get_ydata()[0] - deviation, line.get_ydata()[0] + deviation]
    )
    line = efficiency.containers[1][0]
    assert line.get_xydata() == pytest.approx(np.array([[10, 0.785], [20, 0.805]]))


def test_devices_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(None)] == [""]
    assert "OMP_NUM_THREADS" not in slots(None)[0]
    assert len(slots(3)) == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-8f")
    assert devices() == ["4", "GPU-8f"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(None)] == ["4", "GPU-8f"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots(3)] == ["4", "GPU-8f", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices() == ["0", "1"]
    monkeypatch.setattr("facemix.sweep.jobs.os.sched_getaffinity", lambda process: set(range(7)), raising=False)
    assert {slot["OMP_NUM_THREADS"] for slot in slots(2)} == {"3"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert {slot["OMP_NUM_THREADS"] for slot in slots(2)} == {"5"}
    # And the jobs get them.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    assert run_sweep(plan(tmp_path, group_sizes=(1,), seeds=1)) == {}
    assert [call["CUDA_VISIBLE_DEVICES"] for call in calls(tmp_path)] == ["6"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group-sizes", "0"], "sweep: --group-sizes must be at least 1, got 0"),
        (["--group-sizes", "8", "99"], "sweep: --group-sizes must be at most 64, got 99"),
        (["--pre", "1", "-1"], "sweep: --pre must be at least 1, got -1"),
        (["--pre", "1", "99"], "sweep: pre-99-group-2: resnet18: pre must be between 1 and 9, got 99"),
        (["--mix.patches=2"], "sweep: pre-2-group-2: resnet18: patches must be 1 where pre is more, got 2 and 2"),
        (["--data.source=celeba"], "open_data: root must be given for source 'celeba', got none"),
        (["--seeds", "0"], "sweep: --seeds must be at least 1, got 0"),
        (["--jobs", "0"], "sweep: --jobs must be at least 1, got 0"),
        (["--protection.name=plain"], "sweep: protection.name must be mix, whose group sizes .* got plain"),
        (["--mix.group_size=8"], "sweep: --group-sizes and --pre must say what to sweep over, got --mix.group_size=8"),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "orl", "--out", str(tmp_path / "new"), *arguments]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "new" / "sweep.json").exists()
    assert not (tmp_path / "new" / "calls").exists()  # nothing was trained


def test_a_mistake_is_found_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "no-such-recipe", "--out", str(tmp_path / "new")])
    assert "RECIPE must be one of celeba, " in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "orl", "--out", str(tmp_path / "new"), "--mixed.epochz", "3"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --mixed.epochz 3" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
