"""A baseline, the network that trains through the mix, the controls, and what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from facemix.atomic import atomic_path
from facemix.collapse import collapse
from facemix.cost import partition_cost
from facemix.data import Splits, open_data
from facemix.environment import environment
from facemix.models import build

from .batches import seed_of, training_loader, validation_loader
from .deploy import write_halves
from .learner import Learner
from .measure import best_device, decisions, measure
from .mixed_network import MixedNetwork
from .settings import Experiment, FitSettings
from .stage import make_trainer, train_stage
from .synced_norm import synced
from .task import AttributeTask, IdentityTask, Task

__all__ = ["RESULTS", "run_experiment", "task_of"]

RESULTS = "results.json"
RESULTS_KIND = "facemix-experiment-1"


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
    _check(experiment, splits)
    done = folder / RESULTS
    if done.exists():
        return _finished(done, experiment)
    start = time.perf_counter()
    task = task_of(experiment, splits)
    run = _Run(experiment, seed, folder, splits, task, (baselines or folder.parent) / f"seed-{seed}")
    trained = run.train()
    if rank_zero_only.rank:
        return {}
    results = run.measure(trained)
    results["seconds"] = time.perf_counter() - start
    with atomic_path(done) as temporary:
        temporary.write_text(json.dumps(results, indent=2) + "\n")
    return results


def task_of(experiment: Experiment, splits: Splits) -> Task:
    """What is asked of the network."""
    if experiment.data.task == "identity":
        return IdentityTask(splits.train.people)
    return AttributeTask(tuple(splits.train.attributes))


def evaluated(experiment: Experiment, splits: Splits) -> Labelled:
    """The photographs that the figures are of."""
    return splits.test if experiment.evaluate == "test" else splits.validation


@dataclass(frozen=True)
class _Run:
    """One seed of an experiment."""

    experiment: Experiment
    seed: int
    folder: Path
    splits: Splits
    task: Task
    baseline: Path

    def train(self) -> dict[str, _Trained]:
        """All stages, by name."""
        experiment = self.experiment
        baseline = self._stage("baseline", self.baseline / "baseline", {}, experiment.baseline, None)
        trained = {"baseline": baseline}
        if experiment.mix.group_size == 1:
            return trained
        activations = {"mixing_aware": experiment.mix.activation}
        if experiment.linear_control:
            activations["linear_cloud"] = "identity"
        for name, activation in activations.items():
            edge = {"pre": experiment.model.pre, "post": experiment.model.post}
            options = {"activation": activation, **edge}
            trained[name] = self._stage(name, self.folder / name, options, experiment.mixed, baseline)
        return trained

    def _stage(
        self, name: str, folder: Path, options: Mapping[str, Any], fit: FitSettings, start: _Trained | None
    ) -> _Trained:
        """Train one network, or take what was trained before.

        Args:
            options: of the model, beyond those that the experiment names.
            start: the network whose weights it begins with; its cloud part goes through the mix. None: a new one.
        """
        experiment, seed = self.experiment, seed_of(self.seed, name)
        mix = experiment.mix if start is not None else replace(experiment.mix, group_size=1, warm_up=[], distillation=0.0)
        channels = self.splits.train.images.shape[1]
        options = {**experiment.model.options, "num_classes": self.task.outputs, "in_channels": channels, **options}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(experiment.model.name, options)
        if start is not None:
            network.load_state_dict(start.weights, strict=False)  # a PReLU's slope is new
        data = {key: value for key, value in _plain(asdict(experiment.data)).items() if key not in NO_MATTER}
        recipe = {
            "seed": self.seed, "data": data, "model": experiment.model.name, "options": options, "fit": asdict(fit),
        } | ({} if start is None else {
            "cut": [experiment.model.pre, experiment.model.post], "mix": asdict(mix),
            "baseline": asdict(experiment.baseline),
        })  # fmt: skip
        config = {
            "builder": experiment.model.name, "options": options, "pre": experiment.model.pre,
            "post": experiment.model.post, "group_size": mix.group_size, "max_coeff": mix.max_coeff,
            "image_shape": list(self.splits.train.images.shape[1:]),
        }  # fmt: skip
        trainer = make_trainer(folder, fit.epochs, fit.clip, fit.early_stopping, experiment.trainer)
        teacher = start.plain() if start is not None and mix.distillation else None
        learner = Learner(
            MixedNetwork(synced(network), experiment.model.pre, experiment.model.post, mix.group_size),
            self.task, experiment.data, fit, mix, seed, teacher,
        )  # fmt: skip
        shared = self.splits, self.task, experiment, mix.group_size
        weights = train_stage(
            name, learner, trainer, training_loader(*shared, fit.batch_size, seed, trainer), validation_loader(*shared),
            folder, recipe, config,
        )  # fmt: skip
        return _Trained(experiment, options, weights, learner.curves)

    def measure(self, trained: Mapping[str, _Trained]) -> dict[str, Any]:
        """Scores, controls, cost, pictures and the files to deploy: what results.json holds."""
        experiment, splits, task = self.experiment, self.splits, self.task
        faces = evaluated(experiment, splits)

        def score(name: str, mixed: bool) -> dict[str, Any]:
            seed = seed_of(self.seed, name, "evaluation")
            return measure(trained[name].network(), faces, task, experiment, seed, mixed=mixed)

        scores = {"baseline": score("baseline", mixed=False)}
        mixing: dict[str, Any] = {}
        if "mixing_aware" in trained:
            scores["baseline_mixed"] = score("baseline", mixed=True)
            scores["mixing_aware"] = score("mixing_aware", mixed=True)
            scores["mixing_aware_plain"] = score("mixing_aware", mixed=False)
            if "linear_cloud" in trained:
                scores["linear_cloud"] = score("linear_cloud", mixed=True)
        return {
            "kind": RESULTS_KIND,
            "name": experiment.name,
            "seed": self.seed,
            "settings": _plain(asdict(experiment)),
            "environment": environment(),
            "data": {
                "source": experiment.data.source,
                "task": experiment.data.task,
                "train": len(splits.train),
                "validation": len(splits.validation),
                "test": len(splits.test),
                "labels": task.labels,
                "evaluated_on": experiment.evaluate,
            },
            "scores": scores,
            **mixing,
            "curves": {name: network.curves for name, network in trained.items()},
        }
