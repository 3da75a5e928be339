"""act_mix against PyTorch eager: ReLU, with and without a 3x3/2 max-pool, on [32, 64, 109, 89] float32, S = 8."""

from typing import Any

import pytest
import torch

import facemix_ops
from facemix_ops import reference


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("pool", [None, (3, 2, 1)], ids=["plain", "pool"])
def bench_act_mix(
    benchmark, group_size: int, pool: Any, training: bool, layout: torch.memory_format, contestant: str
) -> None:
    benchmark.group = f"act_mix {'pool' if pool else 'plain'} {'training' if training else 'inference'} {layout}"
    x = torch.randn(32, 64, 109, 89).contiguous(memory_format=layout).requires_grad_(training)
    key = facemix_ops.MixKey.sample(32, group_size)
    op = facemix_ops.act_mix if contestant == "facemix" else reference.act_mix
    with torch.set_grad_enabled(training):
        benchmark(op, x, key, activation="relu", pool=pool)
