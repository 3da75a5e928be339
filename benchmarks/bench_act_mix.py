"""act_mix on its own, plain and pooled: what follows a convolution that is not ours."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from peers import ActMix, Into, compiled
from race import Contestants, with_variants
from workloads import ACTIVATIONS, GROUP_SIZE, LAYOUTS, Features

import facemix_ops
from facemix_ops import MixKey, reference


@pytest.mark.parametrize("work", ACTIVATIONS, ids=lambda work: work.name)
def bench_act_mix(race: Any, work: Features) -> None:
    x, key = torch.randn(work.shape), MixKey.sample(work.shape[0], GROUP_SIZE)
    coeffs, index = key.coeffs.float(), key.order.argsort()
    expected = reference.act_mix(x, key, activation="relu", pool=work.pool)
    contestants: Contestants = {}
    for name, layout in LAYOUTS.items():
        xl = x.contiguous(memory_format=layout)
        ours = partial(facemix_ops.act_mix, xl, key, activation="relu", pool=work.pool)
        out = ours()
        contestants |= with_variants(f"facemix/{name}", partial(ours, out=out))
        contestants[f"fresh/{name}"] = ours
        contestants[f"eager/{name}"] = partial(ActMix(work.pool, out), xl, coeffs, index)
        contestants[f"compile/{name}"] = partial(compiled(Into(ActMix(work.pool))), out, xl, coeffs, index)
    race("act_mix", work, contestants, expected)
