"""What a network is measured with: keys, rounds, and whose photographs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from facemix.data import Splits, synthetic_faces
from facemix.models import build
from facemix.training.experiment import evaluated
from facemix.training.measure import decisions, measure
from facemix.training.mixed_network import MixedNetwork
from facemix.training.settings import Experiment, FitSettings, MixSettings
from facemix.training.task import IdentityTask
from tiny_experiment import OF_RESNET
from torch import nn

import facemix_ops as fo


def test_rounds_have_keys_of_their_own_below_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    network, faces = MixedNetwork(build("resnet18", OF_RESNET), 1, 1), synthetic_faces(5, 2, (16, 16))
    keys, sample = [], fo.MixKey.sample

    def watched(*arguments: Any, **more: Any) -> fo.MixKey:
        keys.append(sample(*arguments, **more))
        return keys[-1]

    monkeypatch.setattr(fo.MixKey, "sample", watched)
    experiment = Experiment(mix=MixSettings(8, max_coeff=0.6), baseline=FitSettings(batch_size=8), rounds=2)
    measure(network, faces, IdentityTask(5), experiment, 0, mixed=True)
    assert len({key.coeffs.numpy().tobytes() for key in keys}) == len(keys) == 4
    assert max(key.coeffs.abs().max().item() for key in keys) <= 0.6
    assert not network.training  # it began as networks are built


@pytest.mark.parametrize(("protection", "rounds"), [("noise", 3), ("plain", 1)])
def test_what_draws_noise_is_measured_in_rounds(protection: str, rounds: int) -> None:
    settings = {"sigma": 8, "std": 0.25} if protection == "noise" else {}
    options = {"protection": protection, "settings": settings, "network": "resnet18", "options": OF_RESNET}
    network, faces = MixedNetwork(build("protected", options), 1, 1), synthetic_faces(5, 2, (16, 16))
    experiment = Experiment(baseline=FitSettings(batch_size=8), rounds=3)
    assert len(measure(network, faces, IdentityTask(5), experiment, 0, mixed=False)["rounds"]) == rounds


def test_a_photograph_that_only_fills_a_batch_is_not_decided_anew() -> None:
    class Counting(nn.Module):
        """Takes everybody of the first batch for person 0, of the second for person 1."""

        rows_per_image, calls = 1, 0

        def forward(self, images: torch.Tensor, key: fo.MixKey | None) -> torch.Tensor:
            self.calls += 1
            return F.one_hot(torch.full((len(images),), self.calls - 1), 5).float()

    network: Any = Counting()
    faces, fit = synthetic_faces(5, 2, (16, 16)), FitSettings(batch_size=8)
    experiment = Experiment(mix=MixSettings(8), baseline=fit)
    found = decisions(network, faces, IdentityTask(5), experiment, 0, 0, mixed=True)
    assert found.bincount().tolist() == [8, 2]


def test_figures_are_of_the_photographs_that_are_asked_for() -> None:
    splits = Splits(*(synthetic_faces(people=5, photos=photos, size=(16, 16)) for photos in (2, 3, 4)))
    assert evaluated(Experiment(), splits) is splits.test
    assert evaluated(Experiment(evaluate="validation"), splits) is splits.validation
