"""Batches: every row once, different people in a group, and the same whoever asks, and when."""

from __future__ import annotations

import itertools

import pytest
import torch
from facemix.data import Labelled, synthetic_faces
from facemix.training.batches import (
    FaceBatches,
    epoch_batches,
    epoch_draws,
    evaluation_batches,
    loader,
    seed_of,
)
from torch import Tensor


@pytest.fixture(scope="module")
def faces() -> Labelled:
    """Seven people with three photographs each: 21 is a multiple of no batch below."""
    return synthetic_faces(people=7, photos=3, size=(6, 5))


def test_seeds_are_of_all_parts_in_their_order() -> None:
    parts: list[tuple[int | str, ...]] = [(), (1,), ("1",), (1, 1), (11,), ("a", 1), (1, "a"), ("a1",)]
    seeds = {seed_of(*part) for part in parts}
    assert len(seeds) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("batches", 0, 1) == 6169547635688749954  # on every machine


def most(identity: Tensor, groups: Tensor) -> int:
    """How often somebody is in a group, at most."""
    people = identity[groups]
    return int((people.unsqueeze(2) == people.unsqueeze(1)).sum(2).max())


@pytest.mark.parametrize("group_size", [1, 2, 3, 4, 8])
def test_every_row_once_and_different_people_in_a_group(group_size: int) -> None:
    """For all divisions of up to 9 rows among people, and some larger ones."""
    larger = [[7] * 40, [1] * 50, [30, 1, 1, 1, 1, 1, 1, 1, 1], [2, 9, 4, 4, 6, 1, 1, 3], [40]]
    small = [list(p) for n in range(1, 10) for p in itertools.product(range(1, 4), repeat=n) if sum(p) <= 9]
    for shares, batches in itertools.product(larger + small[:: 1 if group_size in (2, 3) else 7], (1, 2)):
        identity = torch.arange(len(shares)).repeat_interleave(torch.tensor(shares))
        count, batch_size = len(identity), batches * group_size
        rows = epoch_batches(identity, count, batch_size, group_size, seed=0, epoch=count)
        steps = -(-count // batch_size)
        assert rows.shape == (steps, batch_size)
        assert rows.unique().tolist() == list(range(count))
        groups = rows.view(-1, group_size)
        if max(shares) <= len(groups) and len(shares) >= group_size:
            assert most(identity, groups) == 1, shares
        has = identity[rows.flatten()].bincount(minlength=len(shares))
        in_group = torch.nn.functional.one_hot(identity[groups], len(shares)).sum(1)
        for person in range(len(shares)):  # as even as can be
            assert int(in_group[:, person].max()) == -(-int(has[person]) // len(groups)), shares


def test_rows_that_come_again_differ() -> None:
    again = set()
    for epoch in range(3):
        rows = epoch_batches(None, 21, 16, 4, seed=0, epoch=epoch)
        times = rows.flatten().bincount()
        assert times.max() == 2
        assert most(torch.arange(21), rows.view(-1, 4)) == 1
        again.add(tuple((times == 2).tolist()))
    assert len(again) == 3  # others in each epoch


def test_every_pair_of_people_meets() -> None:
    identity = torch.arange(10).repeat_interleave(4)
    met = torch.zeros(10, 10)
    for epoch in range(30):
        for a, b in identity[epoch_batches(identity, 40, 8, 2, 0, epoch)].view(-1, 2).tolist():
            met[a, b] += 1
    met = met + met.T
    assert met.diagonal().max() == 0
    assert met[~torch.eye(10, dtype=torch.bool)].min() >= 3  # 13 on average


def test_random_choices_are_of_seed_and_epoch() -> None:
    identity = torch.arange(8).repeat_interleave(5)
    for call in (
        lambda seed, epoch: epoch_batches(identity, 40, 8, 4, seed, epoch),
        lambda seed, epoch: epoch_draws(40, seed, epoch, "augment"),
        lambda seed, epoch: evaluation_batches(40, 8, 4, seed, epoch)[0],
    ):
        first = call(1, 2)
        torch.rand(3)  # nobody else's draws matter
        assert torch.equal(first, call(1, 2))
        assert not torch.equal(first, call(1, 3))
        assert not torch.equal(first, call(2, 2))
    draws = epoch_draws(999, 0, 0, "augment")
    assert draws.shape == (999, 7)
    assert draws.dtype == torch.float32
    assert draws.min() >= -1
    assert draws.max() <= 1
    assert draws.mean(0).abs().max() < 0.1
    assert not torch.equal(draws, epoch_draws(999, 0, 0, "distort"))


@pytest.mark.parametrize(("count", "batch_size", "group_size"), [(1, 8, 4), (16, 8, 2), (17, 8, 8), (5, 3, 1)])
def test_evaluation_counts_every_row_once(count: int, batch_size: int, group_size: int) -> None:
    rows, real = evaluation_batches(count, batch_size, group_size, seed=0, round=0)
    assert rows.shape == real.shape == (-(-count // batch_size), batch_size)
    assert rows[real].sort().values.tolist() == list(range(count))
    if group_size == 1:
        assert rows[real].tolist() == list(range(count))


@pytest.mark.parametrize("tests", [False, True])
@pytest.mark.parametrize("task", ["identity", "attributes"])
def test_batches_hold_what_their_rows_say(faces: Labelled, task: str, tests: bool) -> None:
    batches = FaceBatches(faces, task, 8, 4, seed=3, tests=tests)
    for epoch, step in ((0, 0), (1, 2), (0, 1)):
        batch = batches[epoch, step]
        rows = batch["rows"]
        assert torch.equal(batch["images"], torch.from_numpy(faces.images[rows.numpy()]))
        labels = {"identity": faces.identity, "attributes": torch.stack(list(faces.attributes.values()), 1)}[task]
        assert torch.equal(batch[task], labels[rows])
        assert torch.equal(batch["distort"], epoch_draws(21, 3, epoch, "tests" if tests else "distort")[rows])
        if tests:
            expected, real = evaluation_batches(21, 8, 4, 3, epoch)
            assert torch.equal(batch["real"], real[step])
        else:
            expected = epoch_batches(faces.identity, 21, 8, 4, 3, epoch)
            assert torch.equal(batch["augment"], epoch_draws(21, 3, epoch, "augment")[rows])
        assert torch.equal(rows, expected[step])
        assert batch.keys() == {"images", "rows", task, "distort", "real" if tests else "augment"}


@pytest.mark.parametrize("tests", [False, True])
def test_batches_share_no_memory_with_the_plan(faces: Labelled, tests: bool) -> None:
    """A queue between processes moves a tensor's whole storage, while the next batch is already read from the plan."""
    for value in FaceBatches(faces, "identity", 8, 2, seed=0, tests=tests)[0, 0].values():
        assert value.untyped_storage().nbytes() == value.nbytes


@pytest.mark.parametrize("tests", [False, True])
def test_processes_share_each_batch_in_whole_groups(faces: Labelled, tests: bool) -> None:
    alone = FaceBatches(faces, "identity", 8, 2, seed=0, tests=tests)
    shares = [
        FaceBatches(faces, "identity", 8, 2, seed=0, tests=tests, process=process, processes=2) for process in (0, 1)
    ]
    for step in range(alone.steps):
        whole, parts = alone[1, step], [share[1, step] for share in shares]
        for name, value in whole.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), value)
        assert len(parts[0]["rows"]) == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_batches_of_the_epoch_that_is_set(faces: Labelled, workers: int) -> None:
    batches = FaceBatches(faces, "attributes", 4, 4, seed=0)
    ready = loader(batches, workers)
    assert len(ready) == batches.steps == 6
    for epoch in (0, 2):
        ready.sampler.set_epoch(epoch)
        for step, batch in enumerate(ready):
            assert batch.keys() == batches[epoch, step].keys()
            assert all(torch.equal(value, batches[epoch, step][name]) for name, value in batch.items())
        assert step == 5


def test_refusals_say_what_came(faces: Labelled) -> None:
    for call in (
        lambda: epoch_batches(None, 0, 8, 4, 0, 0),
        lambda: evaluation_batches(5, 6, 4, 0, 0),
        lambda: FaceBatches(faces, "identity", 8, 4, 0, processes=3),
    ):
        with pytest.raises(ValueError, match="batch_size must be a positive multiple of group_size, got"):
            call()
    with pytest.raises(ValueError, match="must have labels for task 'identity', got none"):
        FaceBatches(Labelled(faces.images), "identity", 8, 4, 0)
