"""torch.compile and opcheck on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import key_for
from on_device import OPS, assert_as_the_reference, calls, to
from op_samples import samples
from tolerances import assert_near
from torch import Tensor
from torch.nn import functional as F

from facemix_ops import MixKey, conv_mix, group_mix, group_unmix, unmix_linear
from facemix_ops.ops.library import REGISTERED


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("op", [op for op in REGISTERED if not op.startswith("sample_")])
def test_opcheck(device: torch.device, op: str) -> None:
    cases = samples(op)
    assert cases, f"{op} has no sample inputs: add some to tests/helpers/op_samples.py"
    for case in cases:
        there = tuple(_leaf(device, value) for value in case)
        torch.library.opcheck(getattr(torch.ops.facemix_ops, op).default, there)


def _leaf(device: torch.device, value: Any) -> Any:
    there = to(device, value)
    return there.detach().requires_grad_() if isinstance(value, Tensor) and value.requires_grad else there


def test_inductor(device: torch.device) -> None:
    """Every op in one graph, a key from outside, whatever the batch."""

    def every(key: MixKey, tensors: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        return {op: call(key, *tensors[op]) for op, (call, _) in ops.items()}

    ops = calls()
    compiled = torch.compile(every, fullgraph=True, dynamic=True)
    for batch in (16, 24):
        key, tensors = key_for(batch, 8), {op: tensors for op, (_, tensors) in calls(batch=batch).items()}
        there = {op: [t.to(device) for t in tensors[op]] for op in OPS}
        with torch.no_grad():
            results = compiled(key.to(device), there)
        for op, result in results.items():
            assert_as_the_reference(op, result, key, tensors[op])


def round_trip(x: Tensor, w: Tensor, v: Tensor, key: MixKey) -> Tensor:
    """relu(conv(x)) @ v.T whatever the key."""
    y = conv_mix(x, w, None, key, padding=1, activation="relu", pool=2)
    y = group_mix(group_unmix(y, key), key)
    return unmix_linear(y.flatten(1), key, v)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_training_through_a_graph(device: torch.device, mode: str) -> None:
    """Forward and backward; reduce-overhead runs them as CUDA graphs."""
    compiled = torch.compile(round_trip, fullgraph=True, mode=mode)
    w = torch.randn(5, 3, 3, 3, dtype=torch.float64).to(device).requires_grad_()
    v = torch.randn(2, 5 * 9, dtype=torch.float64).to(device).requires_grad_()
    for seed in range(4):
        key = key_for(16, 8, seed).to(device)
        x = torch.randn(16, 3, 6, 6, dtype=torch.float64).to(device)
        plain = F.max_pool2d(F.relu(F.conv2d(x, w, padding=1)), 2).flatten(1) @ v.T
        result = compiled(x, w, v, key)
        assert_near(result.detach().cpu(), plain.detach().cpu())
        ours = torch.autograd.grad(result.square().sum(), (w, v))
        for a, b in zip(ours, torch.autograd.grad(plain.square().sum(), (w, v)), strict=True):
            assert_near(a.cpu(), b.cpu())
