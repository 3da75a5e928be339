"""Steps, epochs and validation of a training, and what its end makes of the network."""

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
from facemix.data import STD, Labelled, synthetic_faces
from facemix.edge import load_half
from facemix.models import build
from facemix.storage import load_tensors
from facemix.training import collapsing
from facemix.training.anonymizing import Anonymizing
from facemix.training.deploy import write_halves
from facemix.training.learner import Learner, inputs, share_of_key
from facemix.training.mixed_network import MixedNetwork
from facemix.training.settings import Changes, DataSettings, Experiment, FitSettings, MixSettings, ModelSettings
from facemix.training.stage import WholeFiles, _trainer
from facemix.training.synced_norm import SyncedBatchNorm2d, synced
from facemix.training.task import IdentityTask
from tiny_experiment import OF_RESNET, OPTIONS
from torch import nn

import facemix_ops as fo
from facemix_ops.nn import _folds


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


def test_an_anonymizers_adversary_learns_too() -> None:
    faces = synthetic_faces(people=5, photos=2, size=(16, 16))
    network, adversary = MixedNetwork(build("resnet18", OF_RESNET), 1, 1), build("resnet18", OF_RESNET)
    fit = FitSettings(schedule="constant")
    settings = network, IdentityTask(5), faces, faces, DataSettings(), fit, MixSettings(1), 0
    learner = Anonymizing(*settings, people=faces.identity, adversary=adversary, hiding=0.6)
    trained = {id(p) for group in learner.configure_optimizers().param_groups for p in group["params"]}
    assert trained == {id(p) for part in (network, adversary) for p in part.parameters()}
