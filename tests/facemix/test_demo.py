"""The demo on synthetic faces, from training to the picture, with a real cloud process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audit_outcomes import FULL, KINDS, attack
from facemix.audit.record import Audit
from facemix.cli import main
from facemix.cloud.model import CloudModel
from facemix.data import Labelled, synthetic_faces
from facemix.demo.audit import recovered
from facemix.demo.cloud_process import cloud_process
from facemix.demo.measure import Passage
from facemix.demo.models import train_baseline, train_mixed
from facemix.demo.picture import draw
from facemix.demo.recorder import Mixed
from facemix.demo.report import show
from facemix.demo.run import run_demo
from facemix.demo.settings import DemoSettings
from facemix.environment import environment
from facemix.errors import FacemixError
from facemix.storage import file_digest
from facemix.training.settings import FitSettings
from PIL import Image

from facemix_ops.edge import Bundle

SETTINGS = DemoSettings(
    size=(32, 32),
    width=0.125,
    group_size=4,
    baseline=FitSettings(epochs=8, batch_size=16),
    rounds=2,
    request_groups=3,
)


def test_what_the_cloud_understands_has_the_scales_of_each_row() -> None:
    scales = np.arange(6, dtype=np.float32).reshape(2, 3)
    mixed = Mixed(np.empty((2, 8, 8, 1), np.uint8), np.full((2, 3, 4, 4), 2, np.int8), scales)
    np.testing.assert_array_equal(mixed.rows(), np.broadcast_to(2 * scales[:, :, None, None], (2, 3, 4, 4)))


@pytest.fixture(scope="module")
def split() -> tuple[Labelled, Labelled]:
    return synthetic_faces(people=5, photos=12, size=SETTINGS.size).split(0.75, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(split: tuple[Labelled, Labelled], folder: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("facemix.demo.audit.ATTACKS", (attack("end_to_end", FULL), attack("slow", KINDS["skipped"])))
        return run_demo(SETTINGS, *split, out=folder / "out", cache=folder / "cache")


def test_figures(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result
    assert (result["train_images"], result["test_images"]) == (45, 15)
    for network in ("baseline", "mixing_aware"):
        figures = result[network]
        assert 0 <= figures["accuracy_through_cloud"] <= 1
        assert 0.2 < figures["accuracy_without_mixing"] <= 1  # better than one of five at random
        assert len(figures["accuracy_through_cloud_rounds"]) == SETTINGS.rounds
        assert figures["requests"] == 2 * 2  # 15 faces in requests of 12, twice
        # 8 channels of 8 x 8 float32 for each row sent: 16 rows for 15 faces.
        assert figures["bytes_up_per_image"] > 16 / 15 * 8 * 8 * 8 * 4
        assert figures["bytes_down_per_image"] > 16 / 15 * 64 * 4
        assert min(figures[f"{part}_ms_per_image"] for part in ("edge", "cloud", "network")) > 0
    assert result["from_cache"] == {"baseline": False, "mixing_aware": False}
    assert result["settings"]["group_size"] == 4
    assert result["environment"]["commit"] == environment()["commit"]


def test_picture(result: dict[str, Any]) -> None:
    with Image.open(result["picture"]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 200


def test_the_audit_is_of_what_the_cloud_received(result: dict[str, Any], folder: Path) -> None:
    audit = result["audit"]
    assert (audit["answer"], audit["worst"], audit["unknown"]) == ("recovered", "end_to_end", ["slow"])
    settings = audit["settings"]
    assert settings["edge"] == file_digest(folder / "out" / "mixed-edge.safetensors")
    assert (settings["effort"], settings["victims"], settings["answers of the cloud"]) == ("quick", 15, True)
    assert audit["verdict"]["headline"] in Path(result["report"]).read_text()


def test_the_picture_shows_the_faces_that_were_recovered(
    result: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "facemix.demo.picture.draw_lines", lambda path, title, note, lines: drawn.append((title, lines))
    )
    received, faces = np.zeros((4, 5, 3, 2), np.float32), np.zeros((4, 1, 3, 2), np.uint8)
    people = torch.zeros(4, dtype=torch.int64)
    passage = Passage([1.0], 0, 0, 0, 0, 0, 1, faces, people, people, received, folder, folder)
    train = Labelled(faces, people)
    audit = Audit("a", (), {"end_to_end": FULL}, {}, {})
    draw(folder / "x.png", passage, train, 4, recovered(audit))
    (title, lines) = drawn[0]
    assert title.endswith("what is recovered")
    assert [line.caption.split()[0] for line in lines[-2:]] == ["Photographs", "The"]
    assert lines[-1].pictures is FULL.pictures[-1].pictures
    assert len(lines[0].pictures) == 2  # as many columns as all have
    assert recovered(Audit("a", (), {"end_to_end": KINDS["skipped"]}, {}, {})) == []


def test_tables(result: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show(result)
    text = " ".join(capsys.readouterr().out.split())
    for line in (result["audit"]["verdict"]["headline"], *result["audit"]["verdict"]["reasons"]):
        assert line in text
    assert f"{result['baseline']['accuracy_without_mixing']:.1%}" in text
    assert f"{result['mixing_aware']['bytes_up_per_image'] / 1024:.2f} KiB" in text
    for claim in ("encrypt", "secure", "safe"):
        assert claim not in text.lower().replace("unknown, which is not safe", "")


def test_trained_networks_come_from_the_cache(
    result: dict[str, Any], split: tuple[Labelled, Labelled], folder: Path
) -> None:
    baseline = train_baseline(SETTINGS, split[0], folder / "cache", fresh=False)
    mixed = train_mixed(SETTINGS, split[0], baseline, folder / "cache", fresh=False)
    assert (baseline.from_cache, mixed.from_cache) == (True, True)
    assert result["from_cache"] == {"baseline": False, "mixing_aware": False}


def test_fresh_trains_again_to_the_same_bits(split: tuple[Labelled, Labelled], tmp_path: Path) -> None:
    settings = replace(SETTINGS, baseline=FitSettings(epochs=1, batch_size=16))
    first, again = (train_baseline(settings, split[0], tmp_path, fresh=fresh) for fresh in (False, True))
    assert not again.from_cache
    states = zip(first.weights.values(), again.weights.values(), strict=True)
    assert all(torch.equal(one, other) for one, other in states)


def test_command(
    result: dict[str, Any],
    split: tuple[Labelled, Labelled],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every option arrives, and the figures are printed and written."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("facemix.data.load_orl", lambda size: split)
    monkeypatch.setattr("facemix.demo.run.run_demo", lambda *args: calls.append(args) or result)
    monkeypatch.chdir(tmp_path)
    options = [
        "--out",
        "o",
        "--cache",
        "c",
        "--group-size",
        "4",
        "--seed",
        "3",
        "--json",
        "f.json",
        "--fresh",
    ]
    assert main(["demo", *options]) == 0
    assert calls == [(DemoSettings(group_size=4, seed=3), *split, Path("o"), Path("c"), True)]
    assert json.loads(Path("f.json").read_text()) == result
    assert f"picture: {result['picture']}" in capsys.readouterr().out


def test_other_settings_have_other_files(result: dict[str, Any], folder: Path) -> None:
    names = sorted(path.name.rsplit("-", 1)[0] for path in (folder / "cache").iterdir())
    assert names == ["audit", "baseline", "mixed"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "audit",
        "baseline-cloud.safetensors",
        "baseline-edge.safetensors",
        "demo.png",
        "mixed-cloud.safetensors",
        "mixed-edge.safetensors",
    ]


def test_the_edge_of_a_small_device(result: dict[str, Any], folder: Path) -> None:
    """Its file goes with the cloud's."""
    bundle = Bundle.load(folder / "out" / "mixed-edge.safetensors")
    assert (bundle.name, bundle.group_size, bundle.image_shape) == ("mixed-cloud", 4, (32, 32, 1))
    assert CloudModel(folder / "out" / "mixed-cloud.safetensors").input_shape == bundle.features_shape


def test_a_cloud_that_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(FacemixError, match="the cloud must print its address, got exit status 1"),
        cloud_process(tmp_path / "none.safetensors"),
    ):
        pass


def test_group_size_is_checked() -> None:
    with pytest.raises(ValueError, match="demo: group size must be between 2 and 64, got 1"):
        DemoSettings(group_size=1)
