"""The demo's two networks, trained or taken from the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import facemix
import facemix_ops as fo
from facemix.data import Faces
from facemix.models import build
from facemix.storage import load_tensors, save_tensors
from facemix.training import TrainConfig, fit, mixing_aware
from facemix.training.mixing import seeded_keys

from .settings import DemoSettings

__all__ = ["BUILDER", "Trained", "train_baseline", "train_mixed"]

BUILDER = "resnet18"


class Trained:
    """A plain, trained network in eval mode, and the options that `models.build` made it of."""

    def __init__(self, options: dict[str, Any], weights: dict[str, torch.Tensor], from_cache: bool) -> None:
        self.options, self.from_cache = options, from_cache
        self.model = build(BUILDER, options)
        self.model.load_state_dict(weights)
        self.model.eval()


def train_baseline(settings: DemoSettings, faces: Faces, cache: Path, fresh: bool) -> Trained:
    """Train without mixing."""
    config = replace(settings.baseline, seed=settings.seed)

    def run(checkpoint: Path) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build(BUILDER, _options(settings, faces))
        fit(model, faces, config, checkpoint, label="baseline")
        return model

    recipe = {"config": asdict(config)}
    return _cached(cache, "baseline", _options(settings, faces), recipe, faces, fresh, run)


def train_mixed(settings: DemoSettings, faces: Faces, baseline: Trained, cache: Path, fresh: bool) -> Trained:
    """Go on from the baseline with the mix in the loop: twice the epochs, a fresh key each step."""
    config = mixed_config(replace(settings.baseline, seed=settings.seed), settings.group_size)

    def run(checkpoint: Path) -> nn.Module:
        model = mixing_aware(baseline.model, BUILDER, baseline.options, settings.group_size, settings.max_coeff)
        with seeded_keys(model):
            fit(model, faces, config, checkpoint, label="mixing-aware")
        return model

    options = {**baseline.options, "activation": "prelu"}
    recipe = {
        "config": asdict(config),
        "group_size": settings.group_size,
        "max_coeff": settings.max_coeff,
        "baseline": asdict(settings.baseline),
    }
    return _cached(cache, "mixed", options, recipe, faces, fresh, run)


def mixed_config(baseline: TrainConfig, group_size: int) -> TrainConfig:
    """Return the config of mixing-aware training: twice the epochs, batches that divide into groups."""
    groups = -(-baseline.batch_size // group_size)
    return replace(baseline, epochs=2 * baseline.epochs, batch_size=groups * group_size)


def _options(settings: DemoSettings, faces: Faces) -> dict[str, Any]:
    return {"num_classes": faces.people, "in_channels": faces.images.shape[1], "width": settings.width}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread within the block.

    The demo's network is too small to gain from more, loses much where other programs run beside it, and
    trains to the same bits whatever the number of cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cached(
    cache: Path,
    name: str,
    options: dict[str, Any],
    recipe: dict[str, Any],
    faces: Faces,
    fresh: bool,
    run: Callable[[Path], nn.Module],
) -> Trained:
    """Return the network of `recipe` from `cache`, or what `run` trains, which goes into the cache."""
    recipe = {
        **recipe,
        "options": options,
        "data": hashlib.sha256(faces.images.numpy().tobytes() + faces.identity.numpy().tobytes()).hexdigest(),
        "versions": {
            "facemix": facemix.__version__,
            "facemix_ops": fo.__version__,
            "torch": torch.__version__,
        },
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    result, progress = cache / f"{name}-{digest}.safetensors", cache / f"{name}-{digest}.progress.safetensors"
    if fresh:
        result.unlink(missing_ok=True)
        progress.unlink(missing_ok=True)
    if result.exists():
        return Trained(options, load_tensors(result)[0], from_cache=True)
    print(f"training {name} on {len(faces)} faces", flush=True)  # the progress bar shows on a terminal only
    with _one_thread():
        weights = dict(run(progress).state_dict())
    save_tensors(result, weights, recipe)
    return Trained(options, weights, from_cache=False)
