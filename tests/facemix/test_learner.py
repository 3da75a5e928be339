"""The pieces of a training: tasks, keys of several processes, group sizes of an epoch, early stopping."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facemix.cli import main
from facemix.data import STD, UNKNOWN, Labelled, Splits, synthetic_faces
from facemix.edge import load_half
from facemix.models import build, registry
from facemix.storage import load_tensors
from facemix.training import collapsing
from facemix.training.anonymizing import Anonymizing
from facemix.training.deploy import write_halves
from facemix.training.experiment import evaluated
from facemix.training.learner import Learner, inputs, share_of_key
from facemix.training.measure import decisions, measure
from facemix.training.mixed_network import MixedNetwork
from facemix.training.processes import processes
from facemix.training.settings import Changes, DataSettings, Experiment, FitSettings, MixSettings, ModelSettings
from facemix.training.stage import WholeFiles, _trainer
from facemix.training.stages import Stages
from facemix.training.synced_norm import SyncedBatchNorm2d, synced
from facemix.training.task import AttributeTask, IdentityTask
from lightning.pytorch.accelerators import CPUAccelerator
from tiny_experiment import OPTIONS
from torch import nn

import facemix_ops as fo
from facemix_ops.nn import _folds

OF_RESNET = {"num_classes": 5, "in_channels": 1, "width": 0.0625, "activation": "prelu"}


@pytest.mark.parametrize(("pre", "post"), [(1, 1), (2, 1), (3, 2)])
def test_a_mixed_network_is_its_parts_around_the_mix(pre: int, post: int) -> None:
    network = build("resnet18", {**OF_RESNET, "pre": pre, "post": post}).double()
    mixed = MixedNetwork(network, pre, post)
    assert all(module.training for module in mixed.modules())  # as the network was
    assert dict(mixed.named_parameters()).keys() == {f"network.{name}" for name, _ in network.named_parameters()}
    x = torch.randn(8, 1, 24, 24, dtype=torch.float64)
    for training in (True, False):
        assert all(module.training == training for module in mixed.train(training).network.modules())
        with fo.MixKey.sample(8, 4) as key, torch.no_grad():
            sent = fo.group_mix(mixed.first(x), key)
            expected = mixed._parts.edge_last(fo.group_unmix(mixed._parts.cloud(sent), key))
            torch.testing.assert_close(mixed(x, key), expected, rtol=1e-9, atol=1e-9)
            assert torch.equal(mixed(x), network(x))


class Dropping(nn.Module):
    """A network whose code asks for its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.body, self.neck = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.neck(self.body(torch.relu(self.conv1(x)))).mean((2, 3))
        return self.fc(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("post", ["fc", "neck"])  # who asks is in the cloud's part, or in the edge's last
@pytest.mark.parametrize("made_in", [False, True])
def test_what_asks_for_the_mode_gets_the_present_one(made_in: bool, post: str) -> None:
    network = Dropping().train(made_in)
    network.body.eval()  # a layer that somebody froze
    mixed = MixedNetwork(network, "conv1", post)
    modes = [module.training for module in (network, network.conv1, network.body)]
    assert modes == [made_in, made_in, False]
    x = torch.randn(8, 1, 16, 16)
    with fo.MixKey.sample(8, 4) as key, torch.no_grad():
        for training in (made_in, not made_in):
            if training is not made_in:
                mixed.train(training)
            assert torch.equal(mixed(x, key), mixed(x, key)) is not training
            assert torch.equal(mixed.rest(mixed.first(x)), mixed.rest(mixed.first(x))) is not training


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
    assert _folds(other[0].eval())


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    more = ["--baseline.epochs=30", "--baseline.lr=0.05", "--baseline.early_stopping=2", "--mix.group_size=1"]
    assert main(["train", *OPTIONS, *more, "--out", str(tmp_path)]) == 0
    stage = tmp_path / "seed-0" / "baseline"
    losses = [point["validation_loss"] for point in json.loads((stage / "curves.json").read_text())]
    best = losses.index(min(losses)) + 1
    assert len(losses) == best + 2 < 30
    steps = load_tensors(stage / "weights.safetensors")[0]["bn1.num_batches_tracked"]
    assert steps == 3 * best


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


def test_a_training_that_diverges_ends_with_a_hint(tmp_path: Path, capsys: Any) -> None:
    assert main(["train", *OPTIONS, "--baseline.lr=1e30", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "train: the loss must stay finite, got nan in epoch " in error
    assert "a lower lr" in error


def learner_of(mix: MixSettings, held_out: int = 2, teacher: nn.Module | None = None, **fit: Any) -> Learner:
    network = MixedNetwork(build("resnet18", OF_RESNET), 1, 1)
    train, validation = (synthetic_faces(people=5, photos=photos, size=(16, 16)) for photos in (2, held_out))
    return Learner(network, IdentityTask(5), train, validation, DataSettings(), FitSettings(**fit), mix, 0, teacher)


def test_every_step_of_every_epoch_and_seed_has_a_key_of_its_own_below_the_bound() -> None:
    learner, keys = learner_of(MixSettings(8, max_coeff=0.6)), []
    learner._trainer = SimpleNamespace(world_size=1)
    for learner.seed, epoch, step in itertools.product(range(2), repeat=3):
        keys.append(learner._sample(16, 8, epoch, step))
    assert len({key.coeffs.numpy().tobytes() for key in keys}) == 8
    assert max(key.coeffs.abs().max().item() for key in keys) <= 0.6


def test_the_validation_loss_is_of_each_photograph_once_through_the_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, logged, found = learner_of(MixSettings(4, max_coeff=0.7), batch_size=8).eval(), {}, []
    forward = learner.network.forward

    def watched(images: torch.Tensor, key: fo.MixKey) -> torch.Tensor:
        assert key.group_size == 4
        assert key.coeffs.abs().max() <= 0.7
        found.append(forward(images, key))
        return found[-1]

    monkeypatch.setattr(learner.network, "forward", watched)
    monkeypatch.setattr(learner, "log", lambda name, value, **_: logged.update({name: value.item()}))
    batches = list(learner.val_dataloader())  # of 8 and of 8, of which 6 fill
    assert sum(map(len, (batch["real"] for batch in batches))) == 16
    for epoch, count in ((batches, 10), (batches[:1], 8)):  # the second tells nothing of the first
        found.clear()
        with torch.no_grad():
            for step, batch in enumerate(epoch):
                learner.validation_step(batch, step)
        learner.on_validation_epoch_end()
        real = torch.cat([batch["real"] for batch in epoch])
        scores, labels = torch.cat(found)[real], torch.cat([batch["identity"] for batch in epoch])[real]
        assert len(scores) == count
        assert logged["validation_loss"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)


def test_a_step_goes_through_a_key_of_its_epochs_size_that_is_zeroed_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, keys = learner_of(MixSettings(8, warm_up=[1, 2]), epochs=8), []
    forward = learner.network.forward
    monkeypatch.setattr(learner.network, "forward", lambda images, key: keys.append(key) or forward(images, key))
    for epoch in (0, 2, 4):
        learner._trainer = SimpleNamespace(current_epoch=epoch, world_size=1)
        learner.loss(torch.randn(8, 1, 16, 16), {"identity": torch.arange(8) % 5}, 0).backward()
        learner.on_train_batch_end(None, None, 0)
    assert [key and key.group_size for key in keys] == [None, 2, 8]
    assert all(key.closed for key in keys[1:])


def test_distillation_adds_the_share_of_the_teachers_softened_scores() -> None:
    teacher = build("resnet18", OF_RESNET).eval()
    learner = learner_of(MixSettings(1, distillation=0.3, temperature=3.0), teacher=teacher).eval()
    images, labels = torch.randn(4, 1, 16, 16), torch.arange(4)
    with torch.no_grad():
        loss = learner.loss(images, {"identity": labels}, 0)
        scores, soft = learner.network(images), F.softmax(teacher(images) / 3, 1)
    divergence = 9 * F.kl_div(F.log_softmax(scores / 3, 1), soft, reduction="batchmean")
    assert loss.item() == pytest.approx((0.7 * F.cross_entropy(scores, labels) + 0.3 * divergence).item(), rel=1e-5)


def test_lightning_clips_gradients_and_writes_whole_checkpoints(tmp_path: Path) -> None:
    trainer = _trainer(learner_of(MixSettings(1), clip=0.25), tmp_path, {})
    assert trainer.gradient_clip_val == 0.25
    assert isinstance(trainer.strategy.checkpoint_io, WholeFiles)


def test_weights_of_another_recipe_are_not_taken(tmp_path: Path) -> None:
    """Of other photographs, and of a network that began as another baseline."""
    faces, others = (synthetic_faces(people=5, photos=photos, size=(16, 16)) for photos in (2, 3))
    fit, model = FitSettings(epochs=1, batch_size=8), ModelSettings(options={"width": 0.0625})
    experiment = Experiment(model=model, mix=MixSettings(4), baseline=fit, mixed=fit)
    stages = Stages(experiment, 0, faces, faces, IdentityTask(5))
    baseline = stages.baseline(tmp_path / "baseline")
    stages.mixing("mixing_aware", "prelu", baseline, tmp_path / "mixed")
    with pytest.raises(ValueError, match="whose photographs differ"):
        replace(stages, train=others).baseline(tmp_path / "baseline")
    longer = replace(experiment, baseline=replace(fit, epochs=2))
    with pytest.raises(ValueError, match=r"whose baseline\.epochs differ"):
        replace(stages, experiment=longer).mixing("mixing_aware", "prelu", baseline, tmp_path / "mixed")


def test_rounds_have_keys_of_their_own_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    network, faces = MixedNetwork(build("resnet18", OF_RESNET), 1, 1), synthetic_faces(5, 2, (16, 16))
    keys, sample = [], fo.MixKey.sample

    def watched(*arguments: Any, **more: Any) -> fo.MixKey:
        keys.append(sample(*arguments, **more))
        return keys[-1]

    monkeypatch.setattr(fo.MixKey, "sample", watched)
    experiment = Experiment(mix=MixSettings(8, max_coeff=0.6), baseline=FitSettings(batch_size=8), rounds=2)
    measure(network, faces, IdentityTask(5), experiment, 0, mixed=True)
    assert len({key.coeffs.numpy().tobytes() for key in keys}) == len(keys) == 4
    assert max(key.coeffs.abs().max().item() for key in keys) <= 0.6
    assert not network.training  # it began as networks are built


@pytest.mark.parametrize(("protection", "rounds"), [("noise", 3), ("plain", 1)])
def test_what_draws_noise_is_measured_in_rounds(protection: str, rounds: int) -> None:
    settings = {"sigma": 8, "std": 0.25} if protection == "noise" else {}
    options = {"protection": protection, "settings": settings, "network": "resnet18", "options": OF_RESNET}
    network, faces = MixedNetwork(build("protected", options), 1, 1), synthetic_faces(5, 2, (16, 16))
    experiment = Experiment(baseline=FitSettings(batch_size=8), rounds=3)
    assert len(measure(network, faces, IdentityTask(5), experiment, 0, mixed=False)["rounds"]) == rounds


def test_a_photograph_that_only_fills_a_batch_is_not_decided_anew() -> None:
    class Counting(nn.Module):
        """Takes everybody of the first batch for person 0, of the second for person 1."""

        rows_per_image, calls = 1, 0

        def forward(self, images: torch.Tensor, key: fo.MixKey | None) -> torch.Tensor:
            self.calls += 1
            return F.one_hot(torch.full((len(images),), self.calls - 1), 5).float()

    network: Any = Counting()
    faces, fit = synthetic_faces(5, 2, (16, 16)), FitSettings(batch_size=8)
    experiment = Experiment(mix=MixSettings(8), baseline=fit)
    found = decisions(network, faces, IdentityTask(5), experiment, 0, 0, mixed=True)
    assert found.bincount().tolist() == [8, 2]


def test_a_collapse_is_made_with_training_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(collapsing, "collapse", lambda network, images, tested, **_: made.append(images))
    dark, light = (synthetic_faces(5, 2, (16, 16)) for _ in range(2))
    dark, light = (replace(f, images=np.full_like(f.images, value)) for f, value in ((dark, 0), (light, 255)))
    network, experiment = build("resnet18", OF_RESNET), Experiment(mix=MixSettings(4))
    collapsing.collapse_trained(network, dark, light, IdentityTask(5), experiment, 0, pre=1, post=1, group_size=4)
    assert (made[0] < 0).all()  # black; white is positive


def test_an_edge_has_the_bound_of_its_training_and_decoys_that_are_nobodys(tmp_path: Path) -> None:
    model = ModelSettings(options={"width": 0.0625})
    generator = np.random.default_rng(0)
    faces = Labelled(generator.integers(0, 256, (10, 1, 16, 16), np.uint8), torch.arange(10) % 5)
    experiment = Experiment(model=model, mix=MixSettings(4, max_coeff=0.8))
    write_halves(tmp_path, build("resnet18", OF_RESNET).eval(), experiment, model, OF_RESNET, faces, list("abcde"))
    bundle = load_half(tmp_path / "edge.safetensors").bundle
    decoys = bundle.decoys
    assert bundle.max_coeff == 0.8
    known = {image.tobytes() for image in faces.images}
    assert len(decoys) == 64
    assert not known & {decoy.transpose(2, 0, 1).tobytes() for decoy in decoys}


def test_faces_are_distorted_always_and_augmented_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, shown = learner_of(MixSettings(1)), []
    learner._trainer = SimpleNamespace(current_epoch=0, global_rank=0)
    monkeypatch.setattr(learner, "loss", lambda images, *_: shown.append(images) or torch.zeros(()))
    batch = next(iter(learner.val_dataloader()))
    batch["distort"] = batch["augment"] = torch.ones_like(batch["distort"])
    plain = inputs(batch, DataSettings(), augment=False)
    learner.data = DataSettings(distort=Changes(brightness=0.5), augment=Changes(brightness=0.25))
    tested = inputs(batch, learner.data, augment=False)
    learner.training_step(batch, 0)
    torch.testing.assert_close(tested, plain + 0.5 / STD)
    torch.testing.assert_close(shown[0], plain + 0.75 / STD)


def test_what_layers_draw_depends_on_epoch_step_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, seeds = learner_of(MixSettings(1)), []
    monkeypatch.setattr(learner, "loss", lambda *_: seeds.append(torch.initial_seed()) or torch.zeros(()))
    batch = next(iter(learner.val_dataloader())) | {"augment": torch.zeros(10, 7)}
    for epoch, step, rank in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        learner._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank, world_size=2)
        learner.training_step(batch, step)
    assert len(set(seeds)) == 4


def test_a_training_that_goes_on_reads_ahead_in_its_own_epoch() -> None:
    """Workers begin before Lightning says which one it is."""
    learner = learner_of(MixSettings(1))
    learner._trainer = SimpleNamespace(world_size=1, global_rank=0)
    learner.on_load_checkpoint({"curves": [], "epoch": 3})
    assert learner.train_dataloader().sampler.epoch == 4


def test_the_optimizer_has_the_settings_and_the_schedule_the_steps() -> None:
    settings = {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3}
    (group,) = learner_of(MixSettings(1), schedule="constant", **settings).configure_optimizers().param_groups
    assert {name: group[name] for name in ("lr", "weight_decay")} == {"lr": 0.01, "weight_decay": 0.3}
    learner = learner_of(MixSettings(1), schedule="onecycle", **settings)
    learner._trainer = SimpleNamespace(estimated_stepping_batches=7)
    schedule = learner.configure_optimizers()["lr_scheduler"]
    assert (schedule["interval"], schedule["scheduler"].total_steps) == ("step", 7)


def test_the_loss_of_an_epoch_is_of_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, losses = learner_of(MixSettings(1)), iter([1.0, 3.0, 5.0])
    monkeypatch.setattr(learner, "loss", lambda *_: torch.tensor(next(losses)))
    monkeypatch.setattr(learner, "log_dict", lambda *_, **__: None)
    batch = next(iter(learner.val_dataloader())) | {"augment": torch.zeros(10, 7)}
    trainer = {
        "strategy": SimpleNamespace(reduce=lambda loss, reduce_op: loss), "callback_metrics": {},
        "optimizers": [SimpleNamespace(param_groups=[{"lr": 0.1}])], "global_rank": 0,
    }  # fmt: skip
    for epoch, steps in enumerate((2, 1)):
        learner._trainer = SimpleNamespace(current_epoch=epoch, **trainer)
        for step in range(steps):
            learner.training_step(batch, step)
        learner.on_train_epoch_end()
    assert [point["loss"] for point in learner.curves] == [2, 5]


def test_figures_are_of_the_photographs_that_are_asked_for() -> None:
    splits = Splits(*(synthetic_faces(people=5, photos=photos, size=(16, 16)) for photos in (2, 3, 4)))
    assert evaluated(Experiment(), splits) is splits.test
    assert evaluated(Experiment(evaluate="validation"), splits) is splits.validation


def test_an_anonymizers_adversary_learns_too() -> None:
    faces = synthetic_faces(people=5, photos=2, size=(16, 16))
    network, adversary = MixedNetwork(build("resnet18", OF_RESNET), 1, 1), build("resnet18", OF_RESNET)
    fit = FitSettings(schedule="constant")
    settings = network, IdentityTask(5), faces, faces, DataSettings(), fit, MixSettings(1), 0
    learner = Anonymizing(*settings, people=faces.identity, adversary=adversary, hiding=0.6)
    trained = {id(p) for group in learner.configure_optimizers().param_groups for p in group["params"]}
    assert trained == {id(p) for part in (network, adversary) for p in part.parameters()}
