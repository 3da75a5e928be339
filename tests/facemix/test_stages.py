"""What each stage of an experiment is asked to train, and by which recipe. Nothing is trained, but in the last test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from facemix.data import synthetic_faces
from facemix.training import stages
from facemix.training.learner import Learner
from facemix.training.settings import Experiment, FitSettings, MixSettings, ModelSettings, ProtectionSettings
from facemix.training.stages import Stages
from facemix.training.task import IdentityTask
from torch import Tensor

FACES = synthetic_faces(5, 2, (24, 24))
NOBODY = FACES.take(torch.empty(0, dtype=torch.int64))
EXPERIMENT = Experiment(
    model=ModelSettings(options={"width": 0.0625}), mix=MixSettings(4, max_coeff=0.8),
    baseline=FitSettings(epochs=2), mixed=FitSettings(epochs=3),
)  # fmt: skip


class Asked(NamedTuple):
    """What `train_stage` was given."""

    learner: Learner
    recipe: Mapping[str, Any]


def asked(monkeypatch: pytest.MonkeyPatch, experiment: Experiment = EXPERIMENT, **more: Any) -> dict[str, Asked]:
    """By the name of the stage. `more`: other values of `Stages`."""
    found: dict[str, Asked] = {}

    def untrained(name: str, learner: Learner, _: Any, __: Path, recipe: Mapping[str, Any], ___: Any) -> Any:
        found[name.partition(", ")[2]] = Asked(learner, recipe)
        weights: dict[str, Tensor] = learner.network.network.state_dict()
        return weights, False

    monkeypatch.setattr(stages, "train_stage", untrained)
    values: dict[str, Any] = {"seed": 0, "train": FACES, "validation": NOBODY, "task": IdentityTask(5)}
    run = Stages(experiment, **values | more)
    baseline = run.baseline(Path())
    run.longer(baseline, Path())
    if experiment.protection.name == "mix":
        run.mixing("mixing_aware", "prelu", baseline, Path())
        run.mixing("linear_cloud", "identity", baseline, Path())
    else:
        run.protected(baseline, Path())
    return found


def test_only_what_mixes_trains_through_the_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch)
    assert {name: one.learner.mix.group_size for name, one in found.items()} == {
        "baseline": 1, "baseline_longer": 1, "mixing_aware": 4, "linear_cloud": 4,
    }  # fmt: skip
    assert [one.learner.settings.epochs for one in found.values()] == [2, 3, 3, 3]
    assert len({one.learner.seed for one in found.values()}) == 4  # each has keys and batches of its own
    noise = replace(EXPERIMENT, protection=ProtectionSettings("noise", sigma=8))
    assert [one.learner.mix.group_size for one in asked(monkeypatch, noise).values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changed", "stays"),
    [
        ({"seed": 1}, ()),
        ({"train": synthetic_faces(5, 2, (24, 24), seed=1)}, ()),
        ({"experiment": replace(EXPERIMENT, mix=MixSettings(4, max_coeff=0.7))}, ("baseline", "baseline_longer")),
        ({"experiment": replace(EXPERIMENT, mixed=FitSettings(epochs=4))}, ("baseline",)),
        ({"experiment": replace(EXPERIMENT, baseline=FitSettings(epochs=1))}, ()),
        ({"experiment": replace(EXPERIMENT, name="another", rounds=7)},
         ("baseline", "baseline_longer", "mixing_aware", "linear_cloud")),
    ],
)  # fmt: skip
def test_a_recipe_holds_all_that_decides(
    changed: dict[str, Any], stays: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after = asked(monkeypatch), asked(monkeypatch, **changed)
    assert tuple(name for name, one in before.items() if one.recipe == after[name].recipe) == stays


def test_weights_of_another_recipe_are_not_taken(tmp_path: Path) -> None:
    """Of other photographs, and of a network that began as another baseline."""
    faces, others = (synthetic_faces(people=5, photos=photos, size=(16, 16)) for photos in (2, 3))
    fit, model = FitSettings(epochs=1, batch_size=8), ModelSettings(options={"width": 0.0625})
    experiment = Experiment(model=model, mix=MixSettings(4), baseline=fit, mixed=fit)
    run = Stages(experiment, 0, faces, faces, IdentityTask(5))
    baseline = run.baseline(tmp_path / "baseline")
    run.mixing("mixing_aware", "prelu", baseline, tmp_path / "mixed")
    with pytest.raises(ValueError, match="whose photographs differ"):
        replace(run, train=others).baseline(tmp_path / "baseline")
    longer = replace(experiment, baseline=replace(fit, epochs=2))
    with pytest.raises(ValueError, match=r"whose baseline\.epochs differ"):
        replace(run, experiment=longer).mixing("mixing_aware", "prelu", baseline, tmp_path / "mixed")
