"""The demo's two networks, trained or taken from the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

import facemix
import facemix_ops as fo
from facemix.data import Labelled
from facemix.training.stages import Stages, Trained
from facemix.training.task import IdentityTask

from .settings import DemoSettings

__all__ = ["train_baseline", "train_mixed"]


def train_baseline(settings: DemoSettings, faces: Labelled, cache: Path, fresh: bool) -> Trained:
    """Train without mixing, or take what `cache` has, unless it shall be `fresh`."""
    experiment = settings.experiment()
    decides = [asdict(experiment.model), asdict(experiment.data), asdict(experiment.baseline)]
    folder = _folder(settings, faces, cache, "baseline", fresh, decides)
    with _one_thread():
        return _stages(settings, faces).baseline(folder)


def train_mixed(settings: DemoSettings, faces: Labelled, baseline: Trained, cache: Path, fresh: bool) -> Trained:
    """Go on from the baseline with the mix in the loop: twice the epochs, a fresh key each step."""
    experiment = settings.experiment()
    folder = _folder(settings, faces, cache, "mixed", fresh, [asdict(experiment)])
    with _one_thread():
        return _stages(settings, faces).mixing("mixing_aware", experiment.mix.activation, baseline, folder)


def _stages(settings: DemoSettings, faces: Labelled) -> Stages:
    nobody = faces.take(torch.empty(0, dtype=torch.int64))
    return Stages(settings.experiment(), settings.seed, faces, nobody, IdentityTask(faces.people))


def _folder(
    settings: DemoSettings, faces: Labelled, cache: Path, name: str, fresh: bool, decides: list[dict[str, object]]
) -> Path:
    """Where a network is kept: other settings, faces or versions have another place."""
    decides = [*decides, {
        "seed": settings.seed,
        "data": hashlib.sha256(faces.images.tobytes() + faces.labels("identity").numpy().tobytes()).hexdigest(),
        "versions": [facemix.__version__, fo.__version__, torch.__version__],
    }]  # fmt: skip
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = cache / f"{name}-{digest}"
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return folder


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
