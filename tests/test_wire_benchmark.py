"""The figures of benchmarks/wire_dtypes.py where they are known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import wire_dtypes
from bundles import CONFIG, FEATURES, OUTPUTS, tensors, written
from torch import nn
from wire_dtypes import LARGEST, accuracies, contestants, times

from facemix_ops.edge import Bundle

VALUES, CHANNELS = int(np.prod(FEATURES)), FEATURES[0]


def test_bytes_errors_and_accuracies() -> None:
    scales = np.full(CHANNELS, 0.05, np.float32)
    bundle = Bundle.parse(written(CONFIG, {**tensors(), "wire.scales": scales}))
    who, x = contestants(bundle, {"int8": LARGEST * scales}), torch.randn(16, 3, 12, 10)
    cloud = nn.Sequential(nn.Flatten(), nn.Linear(VALUES, OUTPUTS, bias=False))
    weight, bias, last = (torch.from_numpy(tensors()[name]) for name in ("first.weight", "first.bias", "last.weight"))
    features = nn.functional.conv2d(x, weight, bias, 2, 1).relu()
    with torch.no_grad():
        right = (cloud(features) @ last.T + torch.from_numpy(tensors()["last.bias"])).argmax(1)
        wrong = right.clone()
        wrong[:4] = -1
        found = accuracies(who, bundle, cloud, x, wrong, rounds=2, request=8)
    assert {name: row["bytes_up"] for name, row in found.items()} == {
        "float32": 4 * VALUES, "float16": 2 * VALUES, "bfloat16": 2 * VALUES, "int8": VALUES + 4 * CHANNELS,
    }  # fmt: skip
    assert found["float32"]["accuracy"] == [0.75, 0.75]
    assert (found["float32"]["agreement"], found["float32"]["largest_error"]) == (1, 0)
    assert 0 < found["float16"]["mean_error"] < found["bfloat16"]["mean_error"] < 0.1
    assert all(row["mean_error"] <= row["largest_error"] for row in found.values())


def test_times_are_how_many_times_longer_than_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Contestant:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        def mix(self, *_: Any) -> None:
            nonlocal now
            now += self.seconds

    monkeypatch.setattr(wire_dtypes.time, "perf_counter", lambda: now)
    who: Any = {"float32": Contestant(2), "int8": Contestant(3)}
    assert times(who, torch.zeros(8, 1), 4, 3, "made up") == {"float32": 1, "int8": 1.5}
