"""The trainings of an experiment: the baseline, and networks that go on from it, most of them through the mix."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facemix.cost import partition_cost
from facemix.data import Labelled
from facemix.models import build, build_bare
from facemix.storage import digest

from .anonymizing import Anonymizing
from .batches import seed_of
from .deciding import deciding
from .learner import Learner
from .mixed_network import MixedNetwork
from .protecting import PROTECTED, protected_options, protected_weights
from .settings import Experiment, FitSettings, MixSettings, ModelSettings
from .stage import train_stage
from .synced_norm import synced
from .task import Task

__all__ = ["Stages", "Trained"]


@dataclass(frozen=True)
class Trained:
    """A network that was trained.

    Attributes:
        model: what it is, and where it is cut.
        options: that `models.build` makes such a network of.
        weights: by name.
        curves: how it got there, see `Learner`.
        from_cache: whether it had been trained before.
    """

    model: ModelSettings
    options: dict[str, Any]
    weights: dict[str, Tensor]
    curves: list[dict[str, Any]] = field(default_factory=list)
    from_cache: bool = False

    def plain(self) -> nn.Module:
        """The network, in eval mode."""
        network = build(self.model.name, self.options)
        network.load_state_dict(self.weights)
        return network.eval().requires_grad_(False)

    def mixed(self) -> MixedNetwork:
        """The network with the mix in it."""
        return MixedNetwork(self.plain(), self.model.pre, self.model.post)


@dataclass(frozen=True)
class Stages:
    """What a seed of an experiment trains. Each stage has a folder; what was done there before is not done again.

    Attributes:
        experiment: see there.
        seed: of initial weights, batches, augmentation and keys.
        train, validation: photographs to learn from, and, if there are any, to look at after each epoch.
        task: what is asked of them.
    """

    experiment: Experiment
    seed: int
    train: Labelled
    validation: Labelled
    task: Task

    def baseline(self, folder: Path) -> Trained:
        """The network without any mix, from random weights."""
        model = self.experiment.model
        return self._stage("baseline", folder, model, self._options(model), self.experiment.baseline, None, bare=True)

    def longer(self, baseline: Trained, folder: Path) -> Trained:
        """The baseline, gone on without any mix for as many epochs as the network that is compared with it."""
        model, fit = self.experiment.model, self.experiment.mixed
        return self._stage("baseline_longer", folder, model, self._options(model), fit, baseline, bare=True)

    def mixing(self, name: str, activation: str, baseline: Trained, folder: Path) -> Trained:
        """The network that goes on from the baseline's weights, through the mix.

        Args:
            name: of the stage; others have other keys.
            activation: of the cloud part.
        """
        model = self.experiment.mixing_model
        return self._stage(name, folder, model, self._mixing_options(activation), self.experiment.mixed, baseline)

    def protected(self, baseline: Trained, folder: Path) -> Trained:
        """The network that goes on from the baseline's weights, behind the protection."""
        options, weights = self._protected_options(), protected_weights(baseline.weights)
        if self.experiment.protection.name == "plain":  # it is the baseline
            return Trained(PROTECTED, options, weights, from_cache=True)
        start = replace(baseline, weights=weights)
        return self._stage("protected", folder, PROTECTED, options, self.experiment.mixed, start)

    def check(self) -> None:
        """Build and cut what will be deployed, without its weights: its turn comes only when the baseline is trained.

        Raises:
            ValueError: if there is no such network, it refuses an option or the photographs, or cannot be cut so, or
                no edge file can hold its first part; or the people whom an anonymizer is to hide are not known.
        """
        experiment = self.experiment
        if experiment.protection.name == "anonymizer" and self.train.identity is None:
            raise ValueError("train: the anonymizer must know the people on the photographs, got no identities")
        model = experiment.mixing_model
        if experiment.protection.name != "mix":
            model, options = PROTECTED, self._protected_options()
        else:
            options = self._mixing_options(experiment.mix.activation)
        network = build_bare(model.name, options)
        shape = tuple(self.train.images.shape[1:])
        cost = partition_cost(network, shape, pre=model.pre, post=model.post, group_size=experiment.group_size)
        features = cost.edge_first.output_shape[experiment.mix.patches > 1 :]
        if experiment.group_size > 1 and len(features) != 3:
            raise ValueError(
                f"train: the edge's first part of {model.name} must give [channels, height, width] of an image, as "
                f"its file has it, got {list(features)}"
            )

    def _protected_options(self) -> dict[str, Any]:
        model = self.experiment.model
        return protected_options(
            self.experiment.protection, model.name, self._options(model), self.train.images.shape[1]
        )

    def _options(self, model: ModelSettings, **more: Any) -> dict[str, Any]:
        """What `models.build` makes a network of."""
        channels = self.train.images.shape[1]
        return {**model.options, "num_classes": self.task.outputs, "in_channels": channels, **more}

    def _mixing_options(self, activation: str) -> dict[str, Any]:
        """What it makes one of that is trained through the mix."""
        model, patches = self.experiment.mixing_model, self.experiment.mix.patches
        cut = {"patches": patches} if patches > 1 else {}  # most networks do not know the word
        return self._options(model, activation=activation, pre=model.pre, post=model.post, **cut)

    def _stage(
        self,
        name: str,
        folder: Path,
        model: ModelSettings,
        options: dict[str, Any],
        fit: FitSettings,
        start: Trained | None,
        *,
        bare: bool = False,
    ) -> Trained:
        """Train one; `bare`: without the mix, or what is in its place."""
        experiment, seed = self.experiment, seed_of(self.seed, name)
        mix = experiment.mix
        if bare or experiment.protection.name != "mix":
            mix = MixSettings(group_size=1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build(model.name, options)
        if start is not None:
            own = network.state_dict()  # more than the baseline's: a PReLU's slope, or all of another network
            known = {name: weight for name, weight in start.weights.items() if name in own}
            network.load_state_dict({**own, **{n: w for n, w in known.items() if w.shape == own[n].shape}})
        decides = deciding(asdict(experiment))
        recipe = {
            "seed": self.seed, "photographs": self.train.digest(), "data": decides["data"],
            "trainer": decides["trainer"], "model": model.name, "options": options, "fit": asdict(fit),
        }  # fmt: skip
        if not bare:
            recipe |= {"cut": [model.pre, model.post], "mix": asdict(mix)}
        if start is not None:
            recipe["baseline"] = asdict(experiment.baseline)
            recipe["start"] = {
                "model": start.model.name, "options": start.options, "weights": digest(start.weights)
            }  # fmt: skip
        if not bare and experiment.protection.name == "anonymizer":
            recipe["hiding"] = experiment.protection.hiding  # the other settings are options of the network
        config = {
            "builder": model.name, "options": options, "pre": model.pre,
            "post": model.post, "group_size": mix.group_size, "max_coeff": mix.max_coeff,
            "image_shape": list(self.train.images.shape[1:]),
        }  # fmt: skip
        teacher = start.plain() if start is not None and mix.distillation else None
        learner = self._learner(
            not bare, MixedNetwork(synced(network), model.pre, model.post),
            self.task, self.train, self.validation, experiment.data, fit, mix, seed, teacher,
        )  # fmt: skip
        weights, from_cache = train_stage(
            f"seed {self.seed}, {name}", learner, experiment.trainer, folder, recipe, config
        )
        return Trained(model, options, weights, learner.curves, from_cache)

    def _learner(self, protected: bool, *arguments: Any) -> Learner:
        protection, model = self.experiment.protection, self.experiment.model
        if not protected or protection.name != "anonymizer":
            return Learner(*arguments)
        people = self.train.identity
        assert people is not None  # see `check`
        options = {**self._options(model), "num_classes": self.train.people}
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(self.seed, "adversary"))
            adversary = synced(build(model.name, options))
        return Anonymizing(*arguments, people=people, adversary=adversary, hiding=protection.hiding)
