"""A network's decisions on labelled faces, without the mix and through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import facemix_ops as fo
from facemix.data import MEAN, STD, Labelled
from facemix.device import best_device
from facemix.protections import Noise, repeatable

from .batches import FaceBatches, loader, seed_of
from .examples import draw_changed, draw_examples
from .learner import inputs
from .mixed_network import MixedNetwork
from .settings import Experiment
from .task import Task

__all__ = ["decisions", "draw_group", "draw_protected", "measure", "test_batches"]


def decisions(
    network: MixedNetwork, faces: Labelled, task: Task, experiment: Experiment, seed: int, number: int, *, mixed: bool
) -> Tensor:
    """What `task.decide` makes of the scores, [N, ...], in one round: groups, keys and distortions are drawn anew.

    Args:
        network: left in eval mode, on the best device.
        faces: with the task's labels.
        seed: of keys and noise. Groups and the task's distortions depend on `number` alone: all networks see the same
            faces.
        number: of the round.
        mixed: through the mix.
    """
    size = experiment.mix.group_size if mixed else 1
    device = best_device()
    network.to(device).eval()
    found: Tensor | None = None
    with torch.inference_mode():
        for step, batch in enumerate(test_batches(faces, task, experiment, size, number)):
            images = inputs({name: value.to(device) for name, value in batch.items()}, experiment.data, augment=False)
            key, generator = None, torch.Generator().manual_seed(seed_of(seed, "evaluation key", number, step))
            if mixed:
                rows = len(images) * network.rows_per_image
                key = fo.MixKey.sample(rows, size, max_coeff=experiment.mix.max_coeff, generator=generator).to(device)
            with repeatable(generator):
                decided = task.decide(network(images, key)).cpu()
            if found is None:
                found = decided.new_empty((len(faces), *decided.shape[1:]))
            real = batch["real"]
            found[batch["rows"][real]] = decided[real]
    assert found is not None  # no empty set gets here: see `run_experiment`
    return found


def test_batches(
    faces: Labelled, task: Task, experiment: Experiment, size: int, number: int
) -> DataLoader[dict[str, Tensor]]:
    """All of `faces` in groups of `size`, once: a round of tests. Groups and distortions depend on its number alone."""
    batch_size = experiment.baseline.whole_groups(size)
    seed = seed_of("evaluation", experiment.data.split_seed)  # the same faces and groups for all networks
    batches = FaceBatches(faces, task.name, batch_size, size, seed, tests=True)
    return loader(batches, experiment.data.workers, epoch=number)


def draw_group(
    path: Path, network: MixedNetwork, faces: Labelled, task: Task, experiment: Experiment, seed: int
) -> None:
    """Write a PNG of the first group of a round of tests, see `draw_examples`."""
    size, rows = experiment.mix.group_size, network.rows_per_image
    batch = {name: value[:size] for name, value in next(iter(test_batches(faces, task, experiment, size, 0))).items()}
    images = inputs(batch, experiment.data, augment=False)
    generator = torch.Generator().manual_seed(seed)
    network.cpu().eval()
    with (
        torch.inference_mode(),
        fo.MixKey.sample(size * rows, size, max_coeff=experiment.mix.max_coeff, generator=generator) as key,
    ):
        features = network.first(images)
        decided = task.decide(network(images, key))
        mixed = fo.group_mix(features, key)
    draw_examples(
        path, _bytes(images), features[::rows], mixed, task.words(batch[task.name]), task.words(decided)
    )  # fmt: skip


def draw_protected(
    path: Path, network: MixedNetwork, faces: Labelled, task: Task, experiment: Experiment, seed: int
) -> None:
    """Write a PNG of the first images of a round of tests, see `draw_changed`."""
    batch = next(iter(test_batches(faces, task, experiment, 1, 0)))
    images = inputs(batch, experiment.data, augment=False)
    network.cpu().eval()
    with torch.inference_mode(), repeatable(torch.Generator().manual_seed(seed)):
        sent = network.first(images)
        decided = task.decide(network.rest(sent))
    draw_changed(
        path, _bytes(images), _bytes(sent), task.words(batch[task.name]), task.words(decided)
    )  # fmt: skip


def _bytes(images: Tensor) -> Tensor:
    """What a network takes, as pixels."""
    return ((images * STD + MEAN) * 255).round().clamp(0, 255).byte()


def _draws_noise(network: MixedNetwork) -> bool:
    return any(isinstance(module, Noise) for module in network.network.modules())


def measure(
    network: MixedNetwork, faces: Labelled, task: Task, experiment: Experiment, seed: int, *, mixed: bool
) -> dict[str, Any]:
    """Figures of a network, see `scores`: of the experiment's rounds, of one round where nothing is drawn."""
    drawn = mixed or experiment.data.distort != type(experiment.data.distort)() or _draws_noise(network)
    rounds = range(experiment.rounds if drawn else 1)
    found = [decisions(network, faces, task, experiment, seed, number, mixed=mixed) for number in rounds]
    return task.score(found, faces.labels(task.name))
