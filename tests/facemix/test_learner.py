"""The pieces of a training: tasks, keys of several processes, group sizes of an epoch, early stopping."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from facemix.cli import main
from facemix.data import UNKNOWN, synthetic_faces
from facemix.models import build
from facemix.storage import load_tensors
from facemix.training.learner import Learner, share_of_key
from facemix.training.mixed_network import MixedNetwork
from facemix.training.settings import DataSettings, FitSettings, MixSettings
from facemix.training.synced_norm import SyncedBatchNorm2d, synced
from facemix.training.task import AttributeTask, IdentityTask
from tiny_experiment import OPTIONS
from torch import nn

import facemix_ops as fo

OF_RESNET = {"num_classes": 5, "in_channels": 1, "width": 0.0625, "activation": "prelu"}


@pytest.mark.parametrize(("pre", "post"), [(1, 1), (2, 1), (3, 2)])
def test_a_mixed_network_is_its_parts_around_the_mix(pre: int, post: int) -> None:
    network = build("resnet18", {**OF_RESNET, "pre": pre, "post": post}).double()
    mixed = MixedNetwork(network, pre, post)
    assert dict(mixed.named_parameters()).keys() == {f"network.{name}" for name, _ in network.named_parameters()}
    x = torch.randn(8, 1, 24, 24, dtype=torch.float64)
    for training in (True, False):
        assert all(module.training == training for module in mixed.train(training).network.modules())
        with fo.MixKey.sample(8, 4) as key, torch.no_grad():
            sent = fo.group_mix(mixed.first(x), key)
            expected = mixed._parts.edge_last(fo.group_unmix(mixed._parts.cloud(sent), key))
            torch.testing.assert_close(mixed(x, key), expected, rtol=1e-9, atol=1e-9)
            assert torch.equal(mixed(x), network(x))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_shares_of_a_key_mix_as_the_whole(processes: int) -> None:
    x = torch.randn(24, 3, dtype=torch.float64)
    with fo.MixKey.sample(24, 4) as key:
        whole = fo.group_mix(x, key)
        rows = 24 // processes
        for rank in range(processes):
            own = slice(rank * rows, (rank + 1) * rows)
            with share_of_key(key, rank, processes) as share:
                sent = fo.group_mix(x[own], share)
                torch.testing.assert_close(fo.group_unmix(sent, share), x[own])
                # The same mixtures, in the same order among each other.
                torch.testing.assert_close(sent, whole[key.order[own].sort().values])


def test_the_loss_of_attributes_leaves_out_what_is_unknown() -> None:
    task = AttributeTask(("a", "b", "c"))
    scores = torch.randn(5, task.outputs, dtype=torch.float64)
    labels = torch.randint(0, 2, (5, 3)).to(torch.int8)
    labels[0, 0] = labels[3, 2] = UNKNOWN
    total = sum(
        F.cross_entropy(scores[row, 2 * head : 2 * head + 2].float(), labels[row, head].long()).item()
        for row in range(5)
        for head in range(3)
        if labels[row, head] != UNKNOWN
    )
    assert task.loss(scores, labels).item() == pytest.approx(total / 15)
    decided = task.decide(scores)
    assert decided.tolist() == [[int(b > a) for a, b in row.view(3, 2)] for row in scores]
    assert task.words(torch.tensor([[1, 0, 1], [0, 0, 0]])) == ["a, c", "none"]


@pytest.mark.parametrize("task", [IdentityTask(6), AttributeTask(("a", "b", "c"))])
def test_distillation_is_least_where_the_teacher_is(task: IdentityTask | AttributeTask) -> None:
    teacher = torch.randn(4, 6)
    assert task.distillation(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)
    assert task.distillation(teacher + torch.randn(4, 6), teacher, 2.0).item() > 0.01


def test_group_sizes_of_a_warm_up() -> None:
    network = MixedNetwork(build("resnet18", OF_RESNET), 1, 1)
    mix, fit = MixSettings(8, warm_up=[1, 2]), FitSettings(epochs=8)
    faces = synthetic_faces(people=5, photos=2, size=(8, 8))
    learner = Learner(network, IdentityTask(5), faces, faces, DataSettings(), fit, mix, 0)
    assert [learner.group_size(epoch) for epoch in range(8)] == [1, 1, 2, 2, 8, 8, 8, 8]


def test_a_synced_norm_alone_is_a_batch_norm() -> None:
    plain, other = nn.BatchNorm2d(3), synced(nn.Sequential(nn.BatchNorm2d(3)))
    assert isinstance(other[0], SyncedBatchNorm2d)
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(plain(x), other(x))
    assert torch.equal(plain.running_var, other[0].running_var)


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    more = ["--baseline.epochs=30", "--baseline.lr=0.05", "--baseline.early_stopping=2", "--mix.group_size=1"]
    assert main(["train", *OPTIONS, *more, "--out", str(tmp_path)]) == 0
    stage = tmp_path / "seed-0" / "baseline"
    losses = [point["validation_loss"] for point in json.loads((stage / "curves.json").read_text())]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 2 < 30
    steps = load_tensors(stage / "weights.safetensors")[0]["bn1.num_batches_tracked"]
    assert steps == 3 * best


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
        ("--name=", "name must not be empty"),
        ("--first-seed=-1", "--first-seed not negative, got 1 and -1"),
        ("--model.pre=20", "pre must be between 1 and 9, got 20"),
        ("--model.name=alexnet", "name must be one of"),
        ("--mixed_model={name: wide_linear, options: {depth: 3}}", "options must suit wide_linear"),
        ("--evaluate=validation", "there must be a validation set to evaluate on, got none"),
        ("--mixed.early_stopping=2", "early_stopping must have a validation set, got none"),
        ("--baseline.lr=0", "lr must be positive, got 0"),
        ("--data.augment.scale=1", "scale must be below 1, got 1"),
    ],
)
def test_refusals_say_what_came(option: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *OPTIONS, "--data.validation_share=0", option, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
