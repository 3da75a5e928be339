"""Trainings that were interrupted, moved, or damaged: the same end, or an error that says what to do."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from facemix.cli import main
from facemix.damaged import undamaged
from facemix.storage import load_tensors, save_tensors
from facemix.training import stage
from facemix.training.learner import Learner
from tiny_experiment import OPTIONS

BASELINE = ["--mix.group_size=1", "--baseline.epochs=30", "--baseline.lr=0.05"]
STOPPING = [*BASELINE, "--baseline.early_stopping=2"]
WIDE = "{name: wide_linear, options: {width: 0.0625, image_size: [24, 24], hidden: 30}}"
MIXED = [
    *[f"--mixed_model={WIDE}", "--mix.activation=identity", "--baseline.epochs=1", "--mixed.epochs=1"],
    *["--linear_control=false", "--longer_control=false"],
]


class Killed(Exception):
    """As by a signal: nothing is saved on the way."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed


def train(out: Path, *options: str) -> int:
    return main(["train", *OPTIONS, *options, "--out", str(out)])


def baseline(out: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    folder = out / "seed-0" / "baseline"
    return load_tensors(folder / "weights.safetensors")[0], json.loads((folder / "curves.json").read_text())


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline that stopped early, in one go."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("stopped")
    assert train(out, *STOPPING) == 0
    return out


@pytest.mark.parametrize("after_best", [-1, 0, 1, 2, 3])
def test_a_training_that_stops_early_goes_on_to_the_same_end(stopped: Path, tmp_path: Path, after_best: int) -> None:
    """Killed in any epoch, the last one's after that for which it waited; and from another folder."""
    expected, curves = baseline(stopped)
    losses = [point["validation_loss"] for point in curves]
    epoch = losses.index(min(losses)) + after_best
    step = Learner.training_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Learner, "training_step", lambda self, *args: killed() if self.current_epoch == epoch else step(self, *args)
        )
        patch.setattr(stage, "_finish", killed)
        with pytest.raises(Killed):
            train(tmp_path / "here", *STOPPING)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert train(tmp_path / "there", *STOPPING) == 0
    found, found_curves = baseline(tmp_path / "there")
    assert found_curves == curves
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_a_training_that_stops_early_ends_with_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    seen, ended = [], Learner.on_validation_epoch_end

    def watched(learner: Learner) -> None:
        seen.append({name: value.clone() for name, value in learner.network.network.state_dict().items()})
        ended(learner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "on_validation_epoch_end", watched)
        assert train(tmp_path, *STOPPING) == 0
    found, curves = baseline(tmp_path)
    losses = [point["validation_loss"] for point in curves]
    best = losses.index(min(losses))
    assert best < len(curves) - 1
    assert all(torch.equal(value, found[name]) for name, value in seen[best - len(curves)].items())


def test_the_best_epoch_of_another_training_is_not_taken(tmp_path: Path) -> None:
    """Of one that was killed in its first epoch, before it noted that."""
    folder = tmp_path / "seed-0" / "baseline"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").touch()
    assert train(tmp_path, *BASELINE, "--baseline.epochs=1") == 0
    assert not (folder / "best.ckpt").exists()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, and another network that mixes."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("mixed")
    assert train(out, *MIXED) == 0
    return out


def unmeasured(done: Path, out: Path) -> Path:
    """A copy, as of a run that was killed before it measured; returns the folder of its seed."""
    shutil.copytree(done, out)
    (out / "seed-0" / "results.json").unlink()
    return out / "seed-0"


def test_what_mixes_notices_that_it_began_from_another_network(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of other options, or of other weights."""
    shutil.rmtree(unmeasured(mixed, tmp_path / "options") / "baseline")
    assert train(tmp_path / "options", *MIXED, "--model.options={width: 0.125}") == 1
    error = capsys.readouterr().err
    assert "it holds one whose start.options.width, start.weights differ (start.options.width: 0.0625, then " in error

    weights = unmeasured(mixed, tmp_path / "weights") / "baseline" / "weights.safetensors"
    tensors, config = load_tensors(weights)
    save_tensors(weights, {name: tensor + 1 for name, tensor in tensors.items()}, config)
    assert train(tmp_path / "weights", *MIXED) == 1
    assert "it holds one whose start.weights differ" in capsys.readouterr().err


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """PyTorch's own writer speaks of positions in the file."""
    path = tmp_path / "last.ckpt"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(OSError, match=re.escape(str(path))):
            stage.WholeFiles().save_checkpoint({"state_dict": {"weight": torch.zeros(1000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_called_damaged_where_memory_is_short() -> None:
    with pytest.raises(RuntimeError, match="out of memory"), undamaged("x must be y", "remove it"):
        raise RuntimeError("CUDA out of memory")


def not_finished(folder: Path, checkpoint: bytes) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "last.ckpt").write_bytes(checkpoint)


def not_ours(folder: Path) -> None:
    not_finished(folder, b"")
    torch.save({"state_dict": {}}, folder / "last.ckpt")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: not_finished(folder, b""), "last.ckpt must be a checkpoint, got EOFError"),
        (lambda folder: not_finished(folder, b"PK" * 99), "last.ckpt must be a checkpoint, got "),
        (not_ours, "last.ckpt must be a checkpoint, got KeyError: 'curves'"),
        (
            lambda folder: (folder / "recipe.json").write_text("{"),
            "recipe.json must be JSON, a dict, got JSONDecodeError",
        ),
        (
            lambda folder: (folder / "recipe.json").write_text("[]"),
            "recipe.json must be JSON, a dict, got TypeError: list",
        ),
        (lambda folder: (folder / "recipe.json").unlink(), "recipe.json must be JSON, a dict, got FileNotFoundError"),
        (
            lambda folder: (folder / "curves.json").write_text("1"),
            "curves.json must be JSON, a list, got TypeError: int",
        ),
        (lambda folder: (folder / "curves.json").unlink(), "curves.json must be JSON, a list, got FileNotFoundError"),
        (
            lambda folder: (folder / "weights.safetensors").write_bytes(b"x"),
            "weights.safetensors must be of this training, got ValueError: load_tensors",
        ),
        (
            lambda folder: shutil.copy(folder.parent / "mixing_aware" / "weights.safetensors", folder),
            "weights.safetensors must be of this training, got one whose baseline, cut, ",
        ),
    ],
)
def test_a_damaged_file_is_named(
    mixed: Path, tmp_path: Path, damage: Callable[[Path], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = unmeasured(mixed, tmp_path / "again") / "baseline"
    damage(folder)
    assert train(tmp_path / "again", *MIXED) == 1
    error = capsys.readouterr().err
    assert f"facemix: error: train: {folder}/{message}" in error
    assert error.endswith(f": remove {folder}, and it is trained again\n")
    shutil.rmtree(folder)
    assert train(tmp_path / "again", *MIXED) == 0
