"""A baseline, the network that trains through the mix, the controls, and what came of them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from facemix.atomic import atomic_path
from facemix.cost import partition_cost
from facemix.data import Labelled, Splits
from facemix.environment import environment
from facemix.report.results import KIND, RESULTS, read_result

from .batches import seed_of
from .collapsing import collapse_trained
from .deciding import deciding, difference, plain
from .deploy import write_halves
from .measure import draw_group, draw_protected, measure
from .processes import processes
from .settings import Experiment
from .stage import is_first_process
from .stages import Stages, Trained
from .task import AttributeTask, IdentityTask, Task

__all__ = ["check_finished", "evaluated", "prepared", "run_experiment", "task_of"]

EXAMPLES = "examples.png"


def run_experiment(
    experiment: Experiment, seed: int, folder: Path, splits: Splits, baselines: Path | None = None
) -> dict[str, Any]:
    """Run all stages of one seed and measure them; what was done before in the same folder is not done again.

    Args:
        experiment: see there.
        seed: of initial weights, batches, augmentation and keys.
        folder: of this seed.
        splits: `open_data(experiment.data)`.
        baselines: a folder that experiments with the same baseline share; default: `folder`'s own.

    Returns:
        What was written to `folder`/results.json: see docs/experiments.md. Empty on all processes but the first.

    Raises:
        ValueError: if a setting will not do, or the folder holds something else.
    """
    done = folder / RESULTS
    if done.exists():
        return _finished(done, experiment, splits)
    start = time.perf_counter()
    run = _Run(prepared(experiment, seed, splits), folder, splits, (baselines or folder.parent) / f"seed-{seed}")
    trained = run.train()
    if not is_first_process():
        return {}
    print(f"facemix train: seed {seed}: measuring", flush=True)
    results = run.measure(trained)
    results["seconds"] = time.perf_counter() - start
    with atomic_path(done) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    return results


def check_finished(out: Path, experiment: Experiment, splits: Splits) -> None:
    """See now what a report of `out` would refuse when all is trained: seeds of other experiments that lie there.

    Raises:
        ValueError: there is one.
    """
    for path in sorted(out.glob(f"seed-*/{RESULTS}")):
        _finished(path, experiment, splits)


def prepared(experiment: Experiment, seed: int, splits: Splits) -> Stages:
    """What a seed trains, once all is checked that can be before.

    Raises:
        ValueError: if a setting will not do, with these photographs or at all.
    """
    _check(experiment, splits)
    stages = Stages(experiment, seed, splits.train, splits.validation, task_of(experiment, splits))
    stages.check()
    return stages


def task_of(experiment: Experiment, splits: Splits) -> Task:
    """What is asked of the network."""
    if experiment.data.task == "identity":
        return IdentityTask(splits.train.people, splits.train.names)
    return AttributeTask(tuple(splits.train.attributes))


def evaluated(experiment: Experiment, splits: Splits) -> Labelled:
    """The photographs that the figures are of."""
    return splits.test if experiment.evaluate == "test" else splits.validation


@dataclass(frozen=True)
class _Run:
    """One seed of an experiment."""

    stages: Stages
    folder: Path
    splits: Splits
    baseline: Path

    def train(self) -> dict[str, Trained]:
        """All stages, by name."""
        stages, experiment = self.stages, self.stages.experiment
        trained = {"baseline": stages.baseline(self.baseline / "baseline")}
        if self._compared() and experiment.longer_control:
            trained["baseline_longer"] = stages.longer(trained["baseline"], self._longer())
        mix = experiment.mix
        if experiment.protection.name != "mix":
            trained["protected"] = stages.protected(trained["baseline"], self.folder / "protected")
            return trained
        activations: dict[str, str] = {"mixing_aware": mix.activation} if mix.group_size > 1 else {}
        if activations and experiment.linear_control:
            activations["linear_cloud"] = "identity"
        for name, activation in activations.items():
            trained[name] = stages.mixing(name, activation, trained["baseline"], self.folder / name)
        return trained

    def _compared(self) -> bool:
        """Whether something goes on from the baseline: here or, where experiments share it, in another one."""
        protection = self.stages.experiment.protection.name
        if protection != "mix":
            return protection != "plain"  # which is the baseline
        return self.stages.experiment.mix.group_size > 1 or self.baseline != self.folder

    def _longer(self) -> Path:
        """The folder of the longer baseline: experiments that share one may differ in how long it goes on."""
        fit = json.dumps(asdict(self.stages.experiment.mixed))
        return self.baseline / f"baseline_longer-{hashlib.sha256(fit.encode()).hexdigest()[:8]}"

    def measure(self, trained: Mapping[str, Trained]) -> dict[str, Any]:
        """Scores, controls, cost, pictures and the files to deploy: what results.json holds."""
        experiment, seed, task, splits = self.stages.experiment, self.stages.seed, self.stages.task, self.splits
        faces = evaluated(experiment, splits)

        def score(name: str, mixed: bool) -> dict[str, Any]:
            return measure(trained[name].mixed(), faces, task, experiment, seed_of(seed, name), mixed=mixed)

        scores = {"baseline": score("baseline", mixed=False)}
        if "baseline_longer" in trained:
            scores["baseline_longer"] = score("baseline_longer", mixed=False)
        mixing: dict[str, Any] = {}
        if "mixing_aware" in trained:
            scores["baseline_mixed"] = score("baseline", mixed=True)
            scores["mixing_aware"] = score("mixing_aware", mixed=True)
            scores["mixing_aware_plain"] = score("mixing_aware", mixed=False)
            if "linear_cloud" in trained:
                scores["linear_cloud"] = score("linear_cloud", mixed=True)
            mixing = self._of_mixing(trained["baseline"], trained["mixing_aware"], faces)
        if "protected" in trained:
            scores["protected"] = score("protected", mixed=False)
            mixing = self._of_protection(trained["baseline"], trained["protected"], faces)
        return {
            "kind": KIND,
            "name": experiment.name,
            "seed": seed,
            "settings": plain(asdict(experiment)),
            "environment": environment(),
            "data": {
                "source": experiment.data.source,
                "task": experiment.data.task,
                "train": len(splits.train),
                "validation": len(splits.validation),
                "test": len(splits.test),
                "labels": task.labels,
                "evaluated_on": experiment.evaluate,
                "digests": [faces.digest() for faces in splits],
            },
            "scores": scores,
            "pictures": {},
            **mixing,
            "curves": {name: network.curves for name, network in trained.items()},
        }

    def _of_mixing(self, baseline: Trained, mixed: Trained, faces: Labelled) -> dict[str, Any]:
        """What only a network that mixes has: a cost on each side, a collapsed self, a picture, files to deploy."""
        experiment, seed, task, train = self.stages.experiment, self.stages.seed, self.stages.task, self.splits.train
        model, size = mixed.model, experiment.mix.group_size
        network = mixed.plain()
        collapsed = collapse_trained(
            network, train, faces, task, experiment, seed_of(seed, "collapse"),
            pre=model.pre, post=model.post, group_size=size,
        )  # fmt: skip
        write_halves(self.folder, network.cpu(), experiment, model, mixed.options, train, task.labels)
        draw_group(self.folder / EXAMPLES, mixed.mixed(), faces, task, experiment, seed_of(seed, "examples"))
        return {
            "collapse": collapsed.as_json(),
            "cost": _cost(baseline, mixed, faces, size),
            "pictures": {"examples": EXAMPLES},
        }

    def _of_protection(self, baseline: Trained, protected: Trained, faces: Labelled) -> dict[str, Any]:
        """The same, but for a collapsed self, of a network behind another protection."""
        experiment, task, train = self.stages.experiment, self.stages.task, self.splits.train
        network, seed = protected.plain(), seed_of(self.stages.seed, "examples")
        write_halves(self.folder, network, experiment, protected.model, protected.options, train, task.labels)
        draw_protected(self.folder / EXAMPLES, protected.mixed(), faces, task, experiment, seed)
        return {"cost": _cost(baseline, protected, faces, 1), "pictures": {"examples": EXAMPLES}}


def _cost(baseline: Trained, deployed: Trained, faces: Labelled, group_size: int) -> dict[str, Any]:
    """Of one of `faces`, on each side, as JSON values."""
    shape = tuple(faces.images.shape[1:])
    cost, whole = (
        partition_cost(trained.plain(), shape, pre=trained.model.pre, post=trained.model.post, group_size=size)
        for trained, size in ((deployed, group_size), (baseline, 1))
    )
    return {
        "edge_multiply_adds": cost.edge_multiply_adds,
        "cloud_multiply_adds": cost.cloud.multiply_adds,
        "whole_multiply_adds": whole.whole_multiply_adds,
        "whole_parameters": whole.edge_parameters + whole.cloud.parameters,
        "edge_share": cost.edge_multiply_adds / whole.whole_multiply_adds,
        "edge_parameters": cost.edge_parameters,
        "cloud_parameters": cost.cloud.parameters,
        "bytes_up": cost.edge_first.output_bytes,
        "bytes_down": cost.cloud.output_bytes,
    }


def _check(experiment: Experiment, splits: Splits) -> None:
    """What can only be seen with the data, and the machine, at hand."""
    devices, cores = experiment.trainer.get("devices"), os.cpu_count() or 1
    if isinstance(devices, int) and devices > cores and not torch.cuda.is_available():  # Lightning starts them all
        raise ValueError(f"train: trainer.devices must be at most {cores}, the cores, without a GPU, got {devices}")
    _check_batches(experiment)
    if experiment.data.task == "identity" and splits.train.people < 2:
        raise ValueError(f"train: there must be two people to tell apart, or more, got {splits.train.people}")
    if not len(evaluated(experiment, splits)):
        raise ValueError(
            "train: there must be a validation set to evaluate on, got none: set data.validation_share above 0"
        )
    if not len(splits.validation) and (experiment.baseline.early_stopping or experiment.mixed.early_stopping):
        raise ValueError(
            "train: early_stopping must have a validation set, got none: set data.validation_share above 0"
        )


def _check_batches(experiment: Experiment) -> None:
    """See now that each process gets whole groups: a later stage's turn comes only when the baseline is trained."""
    count = processes(experiment.trainer)
    for name, size in (("baseline", 1), ("mixed", 1), ("mixed", experiment.group_size)):
        try:
            getattr(experiment, name).whole_groups(size, count)
        except ValueError as error:
            raise ValueError(f"train: {name}.{error}") from None


def _finished(path: Path, experiment: Experiment, splits: Splits) -> dict[str, Any]:
    """The results of a seed that was run before, if it was the same experiment."""
    results = dict(read_result(path).values)
    found = {**deciding(results["settings"]), "photographs": results["data"].get("digests")}
    now = {**deciding(asdict(experiment)), "photographs": [faces.digest() for faces in splits]}
    if different := difference(found, now):
        raise ValueError(
            f"train: {path} must be of the same experiment, got one whose {different}: take another folder, or remove "
            "it"
        )
    return results
