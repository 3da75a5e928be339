"""Batches whose every random choice is a function of seed, epoch and row, and of nothing that happened before.

So a run that was interrupted, or that has other numbers of processes, sees the same batches.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from facemix.data import Labelled
from facemix.data.transforms import DRAWS

__all__ = ["FaceBatches", "Steps", "epoch_batches", "epoch_draws", "evaluation_batches", "loader", "seed_of"]


def seed_of(*parts: int | str) -> int:
    """Return a seed of 63 bits that `parts` decide; other parts, or another order, give one that is unrelated."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big") >> 1


def _generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def epoch_draws(count: int, seed: int, epoch: int, kind: str) -> Tensor:
    """Return what `facemix.data.change` takes for each of `count` rows: float32 [count, 7], from -1 to 1.

    Args:
        kind: what they are for; other kinds have other draws.
    """
    return 2 * torch.rand(count, DRAWS, generator=_generator("draws", kind, seed, epoch)) - 1


def epoch_batches(
    identity: Tensor | None, count: int, batch_size: int, group_size: int, seed: int, epoch: int
) -> Tensor:
    """Return the rows of an epoch, int64 [steps, batch_size].

    Every row comes once; a few come again, so that the last batch is whole. Each `group_size` rows that follow one
    another in a batch are a group. Nobody is in a group twice, unless there are too few people for that, or somebody
    has more rows than there are groups; such rows are spread evenly. Within this, all is random.

    Args:
        identity: int64 [count], who is on which row; None: somebody else on each.
        batch_size: a multiple of `group_size`.

    Raises:
        ValueError: if there are no rows, or the sizes do not suit each other.
    """
    _check_sizes("epoch_batches", count, batch_size, group_size)
    person_of = torch.arange(count) if identity is None else identity
    random = _generator("batches", seed, epoch)
    steps = -(-count // batch_size)
    groups = steps * batch_size // group_size
    order = torch.randperm(count, generator=random)
    rows = torch.cat((order, _filling(order, person_of, steps * batch_size - count, groups)))
    # Person by person, in random order, they are dealt to the groups: one row to each group, then the next round.
    place = torch.randperm(int(person_of.max()) + 1, generator=random)
    rows = rows[torch.argsort(place[person_of[rows]], stable=True)]
    dealt = torch.empty(groups, group_size, dtype=torch.int64)
    for turn, chunk in enumerate(rows.split(groups)):
        person = person_of[chunk]
        first = int((person == person[0]).sum())  # rows of whom the last turn may have ended with
        shuffled = torch.randperm(groups, generator=random)
        has = (person_of[dealt[shuffled, :turn]] == person[0]).sum(1)
        shuffled = shuffled[torch.argsort(has, stable=True)]  # those to groups that have the fewest of them
        rest = shuffled[first:][torch.randperm(groups - first, generator=random)]
        dealt[torch.cat((shuffled[:first], rest)), turn] = chunk
    return dealt.view(steps, batch_size)


def _filling(order: Tensor, person_of: Tensor, missing: int, groups: int) -> Tensor:
    """`missing` rows to come again: of people with fewer rows than there are groups; if there are no such, of any."""
    if not missing:
        return order[:0]
    has, person = person_of.bincount().tolist(), person_of.tolist()
    filling: list[int] = []
    candidates = order.tolist()
    while len(filling) < missing and (candidates := [row for row in candidates if has[person[row]] < groups]):
        for row in candidates:
            if len(filling) < missing and has[person[row]] < groups:
                filling.append(row)
                has[person[row]] += 1
    others = order[torch.arange(missing - len(filling)) % len(order)]
    return torch.cat((torch.tensor(filling, dtype=torch.int64), others))


def evaluation_batches(count: int, batch_size: int, group_size: int, seed: int, round: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a round of tests, int64 [steps, batch_size], and which of them count, bool, likewise.

    Every row counts once. Others fill the last batch, and do not count. The groups are random.

    Args:
        group_size: 1: rows come in their order.
    """
    _check_sizes("evaluation_batches", count, batch_size, group_size)
    order = torch.arange(count)
    if group_size > 1:
        order = torch.randperm(count, generator=_generator("evaluation", seed, round))
    place = torch.arange(-(-count // batch_size) * batch_size)
    return order[place % count].view(-1, batch_size), (place < count).view(-1, batch_size)


def _check_sizes(op: str, count: int, batch_size: int, group_size: int) -> None:
    if count < 1 or group_size < 1 or batch_size < 1 or batch_size % group_size:
        raise ValueError(
            f"{op}: there must be rows, and batch_size must be a positive multiple of group_size, "
            f"got {count} rows, batches of {batch_size} and groups of {group_size}"
        )


class FaceBatches(Dataset[dict[str, Tensor]]):
    """The batches of a training, or of its tests, by (epoch, step): see `Steps`.

    Each is a dictionary of b rows, this process's share of the batch:

        images    uint8 [b, C, H, W]
        rows      int64 [b], which rows of `faces` they are
        distort   float32 [b, 7], for `facemix.data.change`
        augment   float32 [b, 7], likewise; in training only
        identity  int64 [b], or
        attributes  int8 [b, A], 1, 0 or UNKNOWN; which, the task decides
        real      bool [b], which rows count; in tests only

    Args:
        faces: the photographs.
        task: "identity" or "attributes".
        batch_size: rows in a step, of all processes together: a multiple of group_size * processes.
        group_size: rows in a group; a process has whole groups.
        seed: of everything.
        tests: batches for tests; their epochs are the rounds.
        process, processes: which share of each batch, of how many.

    Raises:
        ValueError: if the sizes do not suit each other, or there are no labels for the task.
    """

    def __init__(
        self,
        faces: Labelled,
        task: Literal["identity", "attributes"],
        batch_size: int,
        group_size: int,
        seed: int,
        *,
        tests: bool = False,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        _check_sizes("FaceBatches", len(faces), batch_size, group_size * processes)
        self.faces, self.task = faces, task
        self.batch_size, self.group_size, self.seed, self.tests = batch_size, group_size, seed, tests
        self.steps = -(-len(faces) // batch_size)
        share = batch_size // processes
        self._share = slice(process * share, (process + 1) * share)
        self._labels = faces.labels(task)
        self._epoch, self._plan = -1, dict[str, Tensor]()

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Tensor]:
        epoch, step = place
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._planned(epoch)
        # Copies: what is sent to another process is moved to shared memory with all of its storage, at any moment.
        rows = self._plan["rows"][step, self._share].clone()
        batch = {
            "images": torch.from_numpy(self.faces.images[rows.numpy()]),
            "rows": rows,
            "distort": self._plan["distort"][rows],
            self.task: self._labels[rows],
        }
        if self.tests:
            return batch | {"real": self._plan["real"][step, self._share].clone()}
        return batch | {"augment": self._plan["augment"][rows]}

    def _planned(self, epoch: int) -> dict[str, Tensor]:
        """Of the whole epoch: rows and real [steps, batch_size], draws [N, 7]."""
        count = len(self.faces)
        if self.tests:
            rows, real = evaluation_batches(count, self.batch_size, self.group_size, self.seed, epoch)
            return {"rows": rows, "real": real, "distort": epoch_draws(count, self.seed, epoch, "tests")}
        return {
            "rows": epoch_batches(self.faces.identity, count, self.batch_size, self.group_size, self.seed, epoch),
            "distort": epoch_draws(count, self.seed, epoch, "distort"),
            "augment": epoch_draws(count, self.seed, epoch, "augment"),
        }


class Steps(Sampler[tuple[int, int]]):
    """(epoch, step) for each step of the epoch that was set last."""

    def __init__(self, steps: int) -> None:
        self.steps, self.epoch = steps, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, or round, from 0; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, step) for step in range(self.steps))


def loader(batches: FaceBatches, workers: int = 0, *, epoch: int = 0) -> DataLoader[dict[str, Tensor]]:
    """Return the loader of `batches`; `loader.sampler.set_epoch` chooses another epoch.

    Args:
        workers: processes that read ahead; 0: none.
        epoch: the first, or the round. Workers read ahead before anybody could set it.
    """
    steps = Steps(batches.steps)
    steps.set_epoch(epoch)
    return DataLoader(
        batches,
        batch_size=None,  # an item is a batch
        sampler=steps,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # A process that is forked has the memory map; to any other it would be sent, photograph by photograph.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
