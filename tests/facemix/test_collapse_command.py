"""`facemix collapse` on the folder that an experiment leaves, and the model that it writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from experiments import ALL, results
from facemix.cli import main
from facemix.data import open_data
from facemix.errors import FacemixError
from facemix.export_collapsed import OfPixels, export_collapsed
from facemix.models import build
from facemix.storage import save_tensors
from facemix.training.settings import Changes, DataSettings, Experiment, MixSettings, ModelSettings
from facemix.training.stage import WEIGHTS_KIND
from torch import nn

DATA = DataSettings(source="synthetic", people=4, photos=10, size=(24, 24), distort=Changes(rotation=0.1))
EXPERIMENT = Experiment(
    "tiny", DATA, ModelSettings(options={"width": 0.0625}, post=2), mix=MixSettings(4, max_coeff=0.9), rounds=2
)
# The activation of each, the group size, where it is cut, and how many values are sent. Another network may mix.
STAGES = {
    "mixing_aware": ("prelu", 4, 1, 4 * 6 * 6),
    "linear_cloud": ("identity", 4, 1, 4 * 6 * 6),
    "baseline": ("relu", 1, 4, 8 * 3 * 3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that nobody trained."""
    folder = tmp_path_factory.mktemp("seed-3")
    torch.manual_seed(0)
    for stage, (activation, group_size, pre, _) in STAGES.items():
        options = {"num_classes": 4, "in_channels": 1, "width": 0.0625, "activation": activation, "post": 2}
        network = build("resnet18", options)
        with torch.no_grad():
            network(torch.randn(16, 1, 24, 24))
        (folder / stage).mkdir()
        config = {"kind": WEIGHTS_KIND, "builder": "resnet18", "options": options, "group_size": group_size}
        config |= {"pre": pre, "post": 2}
        save_tensors(folder / stage / "weights.safetensors", network.state_dict(), config)
    settings = json.loads(json.dumps(asdict(EXPERIMENT), default=str))
    (folder / "results.json").write_text(json.dumps({**results(3, ALL), "settings": settings}))
    return folder


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["collapse", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("stage", STAGES)
def test_every_network_of_an_experiment(stage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, str(folder), "--stage", stage)
    tests = len(open_data(DATA).test)
    assert found["decisions"] == 2 * tests  # in each of two rounds, and no row that only fills a batch
    assert found["group_size"] == STAGES[stage][1]
    assert found["images"] == 28  # of the training set, which divides into groups
    assert found["shape"] == [32, STAGES[stage][3]]
    if stage == "baseline":
        assert found["self_agreement"] == 1


def test_it_repeats_to_the_bit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert figures(capsys, str(folder)) == figures(capsys, str(folder))


def test_the_table_ends_with_the_verdict(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = figures(capsys, str(folder))["verdict"]
    path = tmp_path / "collapsed.onnx"
    assert main(["collapse", str(folder), "--write", str(path)]) == 0
    printed, last = capsys.readouterr().out.rsplit("\ncollapsed network: ", 1)
    assert last == f"{path}\n"
    assert "tiny, mixing_aware" in printed
    assert "a 32 x 144 matrix" in printed
    assert " ".join(printed.split()).endswith(" ".join(verdict.split()))


def test_where_it_cannot_write_is_seen_first(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("facemix.data.open_data", lambda settings: pytest.fail("it began"))
    (tmp_path / "file").touch()
    assert main(["collapse", str(folder), "--write", str(tmp_path / "file" / "network.onnx")]) == 1
    assert "collapse: --write must be where files can be written, got " in capsys.readouterr().err


def test_writes_a_model_of_pixels(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "collapsed.onnx"
    found = figures(capsys, str(folder), "--stage", "linear_cloud", "--images", "7", "--write", str(path))
    assert found["images"] == 4  # a whole group
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape[1:]) == ("images", "tensor(uint8)", [24, 24, 1])
    assert session.run(None, {"images": np.zeros((5, 24, 24, 1), np.uint8)})[0].shape == (5, 4)


def test_pixels_become_what_the_network_takes() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    given = OfPixels(nn.Identity(), mean, std)(images)
    for channel in range(3):
        expected = (images[..., channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(given[:, channel].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", [1, float("nan")])
def test_a_model_that_answers_otherwise_is_not_written(
    score: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def run(self, _: Any, feeds: dict[str, Any]) -> list[Any]:
            return [np.full((len(feeds["images"]), 8), score, np.float32)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
    with pytest.raises(FacemixError, match=r"must answer as PyTorch does, within 0\.0001 of the largest score, got"):
        export_collapsed(tmp_path / "m.onnx", network, (3, 2, 2), mean=[0.5] * 3, std=[0.5] * 3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "collapse: --images must be positive, got 0"),
        (["--stage", "baseline"], "RUN must hold baseline/weights."),
    ],
)
def test_refusals(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collapse", str(tmp_path), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_settings_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixing_aware").symlink_to(folder / "mixing_aware")
    (tmp_path / "results.json").write_text(json.dumps({**results(0, ALL), "settings": {"rounds": "many"}}))
    assert main(["collapse", str(tmp_path)]) == 1
    assert "collapse: the results must hold the settings of an experiment, got" in capsys.readouterr().err


def test_results_and_weights_that_are_none(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixing_aware").symlink_to(folder / "mixing_aware")
    for text in ("{}", "[]", "x"):
        (tmp_path / "results.json").write_text(text)
        assert main(["collapse", str(tmp_path)]) == 1
        assert f"report: {tmp_path}/results.json must be " in capsys.readouterr().err
    (tmp_path / "baseline").mkdir()
    save_tensors(tmp_path / "baseline" / "weights.safetensors", {}, {})
    assert main(["collapse", str(tmp_path), "--stage", "baseline"]) == 1
    assert "baseline/weights.safetensors must be of kind 'facemix-weights-1', got None" in capsys.readouterr().err
