"""Training: it learns, it is reproducible, and an interruption changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from facemix.data import Faces, normalise
from facemix.models import build
from facemix.training import TrainConfig, accuracy, fit, mixing_aware, predict
from facemix.training.fit import SAVE_EVERY, _batches
from facemix.training.mixing import seeded_keys
from torch import nn

import facemix_ops as fo

OPTIONS = {"num_classes": 6, "in_channels": 1, "width": 0.125}
CONFIG = TrainConfig(epochs=SAVE_EVERY + 2, batch_size=16)
GROUP = 8


def baseline() -> nn.Module:
    torch.manual_seed(0)
    return build("resnet18", OPTIONS)


def mixed() -> nn.Module:
    return mixing_aware(baseline(), "resnet18", OPTIONS, GROUP)


def train(model: nn.Module, faces: Faces, path: Path, **changes: object) -> list[float]:
    losses: list[float] = []
    with seeded_keys(model):
        fit(
            model,
            faces,
            TrainConfig(**{**vars(CONFIG), **changes}),
            path,
            on_epoch=lambda _, loss: losses.append(loss),
        )
    return losses


def assert_same_bits(one: nn.Module, other: nn.Module, same: bool = True) -> None:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) == same


@pytest.mark.parametrize("make", [baseline, mixed])
def test_loss_falls(make: Callable[[], nn.Module], faces: Faces, tmp_path: Path) -> None:
    losses = train(make(), faces, tmp_path / "c.safetensors", epochs=8)
    assert len(losses) == 8
    assert losses[-1] < 0.8 * losses[0]
    assert not list(tmp_path.iterdir())  # a finished training leaves no checkpoint


@pytest.mark.parametrize("make", [baseline, mixed])
def test_reproducible(make: Callable[[], nn.Module], faces: Faces, tmp_path: Path) -> None:
    models = [make() for _ in range(3)]
    for seed, model in zip((0, 0, 1), models, strict=True):
        train(model, faces, tmp_path / "c.safetensors", epochs=2, seed=seed)
    assert_same_bits(models[0], models[1])
    assert_same_bits(models[0], models[2], same=False)


def interrupted(model: nn.Module, faces: Faces, path: Path) -> None:
    def stop(epochs_done: int, loss: float) -> None:
        if epochs_done == SAVE_EVERY + 1:  # one epoch after a checkpoint: that epoch is lost
            raise KeyboardInterrupt

    with seeded_keys(model):
        fit(model, faces, CONFIG, path, on_epoch=stop)


@pytest.mark.parametrize("make", [baseline, mixed])
def test_resume_gives_the_same_bits(make: Callable[[], nn.Module], faces: Faces, tmp_path: Path) -> None:
    whole, broken, resumed = make(), make(), make()
    train(whole, faces, tmp_path / "whole.safetensors")
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        interrupted(broken, faces, path)
    assert path.exists()
    assert len(train(resumed, faces, path)) == CONFIG.epochs - SAVE_EVERY
    assert_same_bits(whole, resumed)
    assert not path.exists()


def test_a_checkpoint_of_another_config_is_refused(faces: Faces, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        interrupted(baseline(), faces, path)
    with pytest.raises(ValueError, match=r"must be a checkpoint of .*'seed': 5.*, got .*'seed': 0"):
        train(baseline(), faces, path, seed=5)


def test_no_key_in_a_checkpoint(faces: Faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[fo.MixKey] = []
    coefficients: list[torch.Tensor] = []
    sample = fo.MixKey.sample

    def spy(*args: object, **kwargs: object) -> fo.MixKey:
        keys.append(sample(*args, **kwargs))
        coefficients.append(keys[-1].coeffs.clone())
        return keys[-1]

    monkeypatch.setattr(fo.MixKey, "sample", spy)
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        interrupted(mixed(), faces, path)
    assert len(keys) == (SAVE_EVERY + 1) * len(faces) // CONFIG.batch_size  # a fresh one each step
    assert not torch.equal(coefficients[0], coefficients[1])
    assert all(key.closed for key in keys)
    written = path.read_bytes()
    for coeffs in coefficients:
        for row in (coeffs[0, 0], coeffs[0, 0].float()):
            assert row.numpy().tobytes() not in written


def test_mixing_aware_starts_from_the_baseline_with_a_linear_cloud() -> None:
    model, start = mixed(), baseline()
    assert isinstance(model.conv1, fo.MixConv2d)
    assert isinstance(model.fc, fo.UnmixLinear)
    slopes = [module for module in model.modules() if isinstance(module, nn.PReLU)]
    assert len(slopes) == 16
    for module in slopes:
        assert module.weight.item() == 1
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in start.state_dict().items())


def test_a_plain_model_takes_the_converted_models_weights(faces: Faces) -> None:
    """With slopes of 1 the cloud part is affine, and the mix is undone but for the offsets: zero in a fresh
    network.
    """
    model = mixed().eval()
    plain = build("resnet18", {**OPTIONS, "activation": "prelu"}).eval()
    plain.load_state_dict(model.state_dict())
    images = normalise(faces.images[:16])
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 8), (1, 5)])
def test_batches_hold_every_row_and_are_full(count: int, size: int) -> None:
    rows = _batches(count, size)
    assert rows.shape == (-(-count // size), size)
    assert set(rows.flatten().tolist()) == set(range(count))
    assert sorted(rows.flatten()[:count].tolist()) == list(range(count))


def test_predict_through_the_mix_fills_the_last_group(faces: Faces) -> None:
    model = mixed()
    plain = build("resnet18", {**OPTIONS, "activation": "prelu"})
    plain.load_state_dict(model.state_dict())
    images = faces.images[:13]
    assert torch.equal(predict(model, images, GROUP, batch_size=5), predict(plain, images))
    few = faces.take(torch.arange(13))
    assert accuracy(plain, few) == (predict(plain, images) == few.identity).float().mean().item()


def test_refusals_say_what_came() -> None:
    with pytest.raises(ValueError, match=re.escape("TrainConfig: batch_size must be positive, got 0")):
        TrainConfig(batch_size=0)
