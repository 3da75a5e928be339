"""A whole training step of a small ResNet that mixes, against the reference's; autocast."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import key_for
from models import Resnet
from on_device import calls, to
from tolerances import assert_near, mean_error
from torch import Tensor, nn
from torch.nn import functional as F

import facemix_ops
from facemix_ops import MixKey, convert, reference

SIZE = 8


@pytest.fixture
def _known_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers draw the same keys everywhere."""

    draw = MixKey.sample

    def sample(batch: int, group_size: int, *, device: Any = None, **_: Any) -> MixKey:
        return draw(batch, group_size, generator=torch.Generator().manual_seed(0)).to(device or "cpu")

    monkeypatch.setattr(MixKey, "sample", sample)


def step(model: nn.Module, x: Tensor, labels: Tensor, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """Forward, backward, SGD: the scores, and what it leaves, on the CPU. Not the loss: one number, whose rounding in
    PyTorch is no measure."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with torch.autocast(x.device.type, autocast or torch.bfloat16, enabled=autocast is not None):
        scores = model(x)
    scores = scores if scores.dtype == torch.float64 else scores.float()
    F.cross_entropy(scores, labels).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    optimizer.step()
    left = {"scores": scores.detach(), "gradients": torch.cat([g.flatten() for g in gradients.values()])}
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    left["weights and statistics"] = torch.cat([value.flatten() for value in state.values()])
    return {name: value.cpu() for name, value in left.items()}


def by_the_reference(model: nn.Module, *args: Any, **options: Any) -> dict[str, Tensor]:
    """The same step where the layers call plain PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        for op in ("conv_mix", "act_mix", "unmix_linear"):
            patch.setattr(facemix_ops.nn, op, getattr(reference, op))
        return step(model, *args, **options)


@pytest.mark.usefixtures("_known_keys")
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_step(device: torch.device, autocast: torch.dtype | None, layout: torch.memory_format) -> None:
    model = convert(Resnet(), first="conv1", last="fc", group_size=SIZE).train()
    x, labels = torch.randn(4 * SIZE, 3, 64, 64), torch.randint(10, (4 * SIZE,))
    exact = by_the_reference(copy.deepcopy(model).double(), x.double(), labels)
    there = (x.to(device).contiguous(memory_format=layout), labels.to(device))
    plain = by_the_reference(copy.deepcopy(model).to(device), *there, autocast=autocast)
    ours = step(copy.deepcopy(model).to(device), *there, autocast=autocast)
    for name, value in exact.items():
        assert_near(ours[name], value, plain[name], mean_error)


@pytest.mark.parametrize("op", ["conv_mix", "unmix_linear"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(device: torch.device, op: str, dtype: torch.dtype) -> None:
    """Results in its dtype, as if the tensors had come in it; float64 stays float64."""
    call, tensors = calls()[op]
    key, there = key_for(16, 8).to(device), to(device, tuple(tensors))
    with torch.no_grad(), torch.autocast(device.type, dtype):
        result = call(key, *there)
        wide = call(key, *[t.double() for t in there])
    assert result.dtype == dtype
    assert wide.dtype == torch.float64
    halves = [t if t.numel() == 1 else t.to(dtype) for t in there]  # a trained slope stays as it is
    with torch.no_grad():
        assert torch.equal(result, call(key, *halves))


@pytest.mark.parametrize("op", ["act_mix", "group_mix", "group_unmix"])
def test_autocast_leaves_the_pure_mixes_alone(device: torch.device, op: str) -> None:
    call, tensors = calls()[op]
    key, there = key_for(16, 8).to(device), to(device, tuple(tensors))
    with torch.no_grad():
        expected = call(key, *there)
        with torch.autocast(device.type, torch.bfloat16):
            assert torch.equal(call(key, *there), expected)
