"""What `facemix train` refuses, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from facemix.cli import main
from facemix.models import registry
from facemix.training.processes import processes
from lightning.pytorch.accelerators import CPUAccelerator
from tiny_experiment import OPTIONS
from torch import nn


class Flat(nn.Module):
    """A network whose first part gives no maps."""

    pre_blocks, post_blocks = ("first",), ("last",)

    def __init__(self, num_classes: int, in_channels: int, **_: Any) -> None:
        super().__init__()
        self.flat, self.first = nn.Flatten(), nn.Linear(24 * 24 * in_channels, 8)
        self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(self.flat(x))))


def test_what_no_edge_file_can_hold_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry._BUILDERS, "flat", Flat)
    command = ["train", *OPTIONS, "--model.name=flat", "--model.options={}", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "the edge's first part of flat must give [channels, height, width]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_lightning_refuses_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trainer in ("{colour: red}", "{precision: 3}"):
        assert main(["train", *OPTIONS, f"--trainer={trainer}", "--out", str(tmp_path / "out")]) == 1
        assert "trainer must suit lightning.Trainer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--mix.group_size=65", "group_size must be between 1 and 64, got 65"),
        (
            "--mixed_model={name: wide_linear, options: {image_size: [24, 23]}}",
            "image_size of wide_linear must be data",
        ),
        ("--mix.warm_up=[3]", "warm_up must be divisors of the group size 4, got 3"),
        ("--mix.max_coeff=0.62", "max_coeff must be at least 0.63 for groups of 4 and at most 1, got 0.62"),
        ("--mix={max_coeff: 0.7, warm_up: [1, 2]}", "max_coeff must be at least 0.794 for groups of 2 and at most 1"),
        ("--mix.distillation=2", "distillation must be between 0 and 1, got 2"),
        ("--mix.temperature=0", "temperature must be positive, got 0"),
        ("--rounds=0", "rounds must be at least 1, got 0"),
        ("--name=", "name must have 1 to 100 printable characters without a slash, got ''"),
        ("--name=..", "name must have 1 to 100 printable characters without a slash, got '..'"),
        ("--name=../x", "name must have 1 to 100 printable characters without a slash, got '../x'"),
        ("--first-seed=-1", "--first-seed not negative, got 1 and -1"),
        ("--model.options.num_classes=3", "options must not have num_classes, which follows from data.task, got 3"),
        ("--mixed_model={name: resnet18, options: {pre: 2}}", "must not have pre, which follows from model.pre, got 2"),
        ("--model.pre=20", "pre must be between 1 and 9, got 20"),
        ("--model.name=alexnet", "name must be one of"),
        ("--mixed_model={name: wide_linear, options: {depth: 3}}", "options must suit wide_linear"),
        ("--trainer.max_epochs=1", "trainer.max_epochs must be given as baseline.epochs and mixed.epochs"),
        ("--trainer.gradient_clip_val=1", "trainer.gradient_clip_val must be given as baseline.clip and mixed.clip"),
        ("--trainer.devices=3", "trainer.devices must be at most 2, the cores, without a GPU, got 3"),
        ("--data.people=1", "train: there must be two people to tell apart, or more, got 1"),
        ("--evaluate=validation", "there must be a validation set to evaluate on, got none"),
        ("--mixed.early_stopping=2", "early_stopping must have a validation set, got none"),
        ("--baseline.lr=0", "lr must be positive, got 0"),
        ("--baseline.batch_size=1", "batch_size must be at least 2, for batch norms, got 1"),
        ("--mixed.batch_size=1", "batch_size must be at least 2, for batch norms, got 1"),
        ("--trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must not be 0, got 0"),
        ("--trainer.max_steps=0", "trainer.max_steps must not be 0, got 0"),
        ("--data.split_seed=9223372036854775808", "split_seed must be a number of 64 bits, got 9223372036854775808"),
        ("--model.options.width=1e9", "options must suit resnet18, got {'width': 1000000000.0, "),
        ("--baseline={lr: .nan}", "lr must be positive, got nan"),
        ("--mixed.weight_decay=-1", "weight_decay must not be negative, got -1"),
        ("--mixed.clip=0", "clip must be positive, got 0"),
        ("--mixed.early_stopping=0", "early_stopping must be positive, got 0"),
        ("--mix.patches=0", "patches must be at least 1, got 0"),
        ("--data.augment.scale=1", "scale must be below 1, got 1"),
    ],
)
def test_refusals_say_what_came(
    option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["train", *OPTIONS, "--data.validation_share=0", option, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("option", "got"), [("mixed", "12 images for groups of 4"), ("baseline", "7 images")])
def test_every_process_must_get_whole_groups(option: str, got: str, tmp_path: Path, capsys: Any) -> None:
    """Said before the baseline is trained."""
    size = f"--{option}.batch_size={got.split()[0]}"
    assert main(["train", *OPTIONS, "--trainer.devices=2", size, "--out", str(tmp_path / "out")]) == 1
    rule = f"train: {option}.batch_size must divide into whole groups for each process, got {got}"
    assert rule in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "count"), [({}, 1), ({"devices": "auto"}, 3), ({"devices": -1}, 3), ({"devices": 2, "num_nodes": 2}, 4)]
)
def test_one_device_unless_more_are_wanted(
    options: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that has three: Lightning would take all, and run the command once for each."""
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 3))
    monkeypatch.setattr(CPUAccelerator, "parse_devices", staticmethod(lambda asked: 3 if asked == -1 else asked))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert processes(options) == count


def test_more_devices_must_get_whole_groups(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever way they are asked for."""
    monkeypatch.setattr("facemix.training.experiment.processes", lambda trainer: 5)
    assert main(["train", *OPTIONS, "--out", str(tmp_path / "out")]) == 1
    assert "batch_size must divide into whole groups for each process" in capsys.readouterr().err
