"""Autocast: the ops that contain a convolution or a matrix product behave as PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from cases import key_for
from tolerances import assert_near
from torch import nn
from torch.nn import functional as F

from facemix_ops import (
    MixConv2d,
    UnmixLinear,
    act_mix,
    conv_mix,
    group_mix,
    group_unmix,
    reference,
    unmix_linear,
)

CASTS = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("cast", CASTS)
def test_results_have_the_autocast_dtype(cast: torch.dtype) -> None:
    key, x, w = key_for(4, 2), torch.randn(4, 3, 6, 6), torch.randn(2, 3, 3, 3)
    b, v = torch.randn(2), torch.randn(5, 6)
    with torch.autocast("cpu", dtype=cast):
        conv, linear = conv_mix(x, w, b, key), unmix_linear(x, key, v)
        assert conv.dtype == F.conv2d(x, w, b).dtype == cast
        assert linear.dtype == F.linear(x, v).dtype == cast
        wide = conv_mix(x, w, b, key, out_dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert_near(
        conv,
        reference.conv_mix(x.double(), w.double(), b.double(), key),
        reference.conv_mix(x.to(cast), w.to(cast), b.to(cast), key),
    )
    assert torch.equal(conv, conv_mix(x.to(cast), w.to(cast), b.to(cast), key))
    assert torch.equal(linear, unmix_linear(x.to(cast), key, v.to(cast)))


@pytest.mark.parametrize("cast", CASTS)
def test_float64_and_the_pure_mixes_are_left_alone(cast: torch.dtype) -> None:
    """Nothing is cast where PyTorch would not; the key's matrices are never rounded to the cast's dtype."""
    key, x = key_for(4, 2), torch.randn(4, 3, 6, 6)
    w, v = torch.randn(2, 3, 3, 3).double(), torch.randn(5, 6).double()
    before = key.coeffs.clone()
    with torch.autocast("cpu", dtype=cast):
        conv, linear = conv_mix(x.double(), w, None, key), unmix_linear(x.double(), key, v)
        mixed, act = group_mix(x, key), act_mix(x, key, activation="relu")
        assert torch.equal(group_unmix(mixed, key), group_unmix(group_mix(x, key), key))
    assert conv.dtype == linear.dtype == torch.float64
    assert_near(conv, reference.conv_mix(x.double(), w, None, key))
    assert_near(linear, reference.unmix_linear(x.double(), key, v))
    assert mixed.dtype == act.dtype == torch.float32
    assert_near(mixed, reference.group_mix(x.double(), key), reference.group_mix(x, key))
    assert key.coeffs.dtype == torch.float64
    assert torch.equal(key.coeffs, before)


def layers(norm: bool) -> tuple[nn.Sequential, nn.Sequential]:
    """A mixing network and the plain one with the same weights."""
    conv = MixConv2d(3, 4, 3, group_size=2, norm=nn.BatchNorm2d(4) if norm else None, activation="relu", pool=2)
    mixing = nn.Sequential(conv, nn.Flatten(), UnmixLinear(16, 5))
    steps = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.MaxPool2d(2)]
    plain = nn.Sequential(nn.Sequential(*steps), nn.Flatten(), nn.Linear(16, 5))
    for ours, theirs in zip(mixing.state_dict().values(), plain.state_dict().values(), strict=True):
        theirs.copy_(ours)
    return mixing, plain


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_layers(norm: bool, training: bool) -> None:
    """As the plain network under autocast, gradients in the parameters' own float32."""
    mixing, plain = (m.train(training) for m in layers(norm))
    x = torch.randn(8, 3, 6, 6)
    exact = layers(norm)[1].double().train(training)
    exact.load_state_dict(plain.double().state_dict())
    plain.float()
    expected = exact(x.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = mixing(x), plain(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert_near(ours, expected, theirs)
    for model, result in ((mixing, ours), (plain, theirs), (exact, expected)):
        result.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in model.parameters())


def test_out_has_the_autocast_dtype() -> None:
    key, x, w = key_for(4, 2), torch.randn(4, 3, 6, 6), torch.randn(2, 3, 3, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = torch.empty(4, 2, 4, 4, dtype=torch.bfloat16)
        assert torch.equal(conv_mix(x, w, None, key, out=out), conv_mix(x, w, None, key))
        with pytest.raises(TypeError, match=r"conv_mix: out must have dtype torch\.bfloat16"):
            conv_mix(x, w, None, key, out=out.float())
