"""Whether a trained network's cloud part can be collapsed, on the faces of its experiment."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from facemix.collapse import Collapse, collapse
from facemix.data import UNKNOWN, Labelled
from facemix.device import best_device

from .batches import seed_of
from .learner import inputs
from .measure import test_batches
from .settings import Experiment
from .task import Task

__all__ = ["IMAGES", "collapse_trained"]

#: Training photographs that the matrix is made with: the mean derivative changes little with more.
IMAGES = 256


def collapse_trained(
    network: nn.Module,
    train: Labelled,
    faces: Labelled,
    task: Task,
    experiment: Experiment,
    seed: int,
    *,
    pre: int,
    post: int,
    group_size: int,
    images: int = IMAGES,
    progress: bool = False,
) -> Collapse:
    """Collapse a plain network of `experiment`, see `facemix.collapse`.

    Args:
        network: goes to the best device.
        train: whose photographs, as many as `images`, make the matrix; changed as in a test, not augmented.
        faces: that both are tested on, in all rounds of the experiment.
        seed: of keys, and of which photographs.
        pre, post: where it is cut.
        group_size: of the mix that it was trained with; 1: none.
        progress: show a bar.
    """
    device = best_device()

    def batches(of: Labelled, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in test_batches(of, task, experiment, group_size, number):
            labels = batch[task.name].clone()
            labels[~batch["real"]] = UNKNOWN  # these rows only fill the last batch
            on_device = {name: value.to(device) for name, value in batch.items()}
            yield inputs(on_device, experiment.data, augment=False), labels

    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed_of(seed, "images")))
    some = train.take(rows[:images])
    whole = max(len(some) // group_size, 1) * group_size  # without the rows that only fill the last batch
    return collapse(
        network.to(device),
        torch.cat([x for x, _ in batches(some, 0)])[:whole],
        (batch for number in range(experiment.rounds) for batch in batches(faces, number)),
        pre=pre,
        post=post,
        group_size=group_size,
        max_coeff=experiment.mix.max_coeff,
        seed=seed,
        progress=progress,
    )
