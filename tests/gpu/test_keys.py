"""Keys on the device: drawn there or brought there, and wiped there."""

from __future__ import annotations

import pytest
import torch
from cases import key_for
from tolerances import assert_near
from torch.nn import functional as F

from facemix_ops import GroupMix, MixConv2d, MixKey, UnmixLinear, group_mix, reference, sample_orthogonal


@pytest.mark.parametrize("size", [2, 3, 4, 8, 16, 33, 64])
def test_drawn(device: torch.device, size: int) -> None:
    key = MixKey.sample(4 * size, size, device=device)
    assert key.device == key.coeffs.device == key.order.device == device
    eye = torch.eye(size, dtype=torch.float64, device=device)
    assert (key.coeffs.mT @ key.coeffs - eye).abs().max() < 1e-12
    assert torch.equal(key.order.sort().values, torch.arange(4 * size, device=device))
    assert not torch.equal(key.coeffs, MixKey.sample(4 * size, size, device=device).coeffs)


def test_a_key_that_is_there_already(device: torch.device) -> None:
    """The same one, closed with it, whichever name the device is called by."""
    key = MixKey.sample(8, 4, device=device)
    assert all(key.to(name) is key for name in (device, str(device), device.type))


def test_bounded(device: torch.device) -> None:
    coeffs = sample_orthogonal(64, 8, max_coeff=0.6, device=device)
    assert coeffs.device == device
    assert coeffs.abs().max() <= 0.6


def test_the_same_seed_draws_the_same_key(device: torch.device) -> None:
    one, two = (MixKey.sample(32, 8, device=device, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one.coeffs, two.coeffs)
    assert torch.equal(one.order, two.order)


@pytest.mark.small
@pytest.mark.parametrize("size", [2, 3, 8, 16, 33, 64])
def test_drawn_for_training(device: torch.device, size: int) -> None:
    """By a generator that lies there, whichever bits it has: a good key, the same from the same seed, then another."""
    batch, generator = 5 * size, torch.Generator(device)
    one, two = (MixKey.sample(batch, size, generator=generator.manual_seed(7)) for _ in range(2))
    other = MixKey.sample(batch, size, device="cpu", generator=generator)
    assert one.device == device
    assert other.device.type == "cpu"
    eye = torch.eye(size, dtype=torch.float64, device=device)
    assert (one.coeffs.mT @ one.coeffs - eye).abs().max() < 1e-12
    assert torch.equal(one.order.sort().values, torch.arange(batch, device=device))
    assert torch.equal(one.coeffs, two.coeffs)
    assert torch.equal(one.order, two.order)
    assert not torch.equal(one.coeffs, other.coeffs.to(device))
    assert one.coeffs.flatten(1).unique(dim=0).shape[0] == 5
    bounded = sample_orthogonal(5, size, max_coeff=0.8, generator=generator)
    assert bounded.device == device
    assert bounded.abs().max() <= 0.8


@pytest.mark.parametrize("size", [2, 3, 8])
def test_moments_of_those_for_training(device: torch.device, size: int) -> None:
    """Of the Haar measure, to five standard errors: every entry's, the trace's, the determinant's."""
    a = sample_orthogonal(20000, size, generator=torch.Generator(device).manual_seed(size)).cpu()
    trace = a.diagonal(dim1=1, dim2=2).sum(1)
    for samples, expected in (
        (a, 0.0),
        (a**2, 1 / size),
        (a**4, 3 / (size * (size + 2))),
        (trace, 0.0),
        (trace**2, 1.0),
        (torch.linalg.det(a).sign(), 0.0),
    ):
        assert ((samples.mean(0) - expected).abs() <= 5 * samples.std(0) / len(a) ** 0.5).all()


def test_many_rows_for_training(device: torch.device) -> None:
    """More than a block sorts at once."""
    key = MixKey.sample(5000, 4, generator=torch.Generator(device).manual_seed(0))
    assert torch.equal(key.order.sort().values, torch.arange(5000, device=device))


def test_brought(device: torch.device) -> None:
    """A key made on the CPU mixes there as it does here, and is closed on its own."""
    key, x = key_for(16, 8), torch.randn(16, 5)
    moved = key.to(device)
    assert_near(group_mix(x.to(device), moved).cpu(), reference.group_mix(x.double(), key), reference.group_mix(x, key))
    assert moved.to(device) is moved
    moved.close()
    assert not moved._coeffs.any()
    assert not moved._order.any()
    assert moved is key or not key.closed


def test_matrices_of_ones_own(device: torch.device) -> None:
    """Checked where they lie."""
    eye = torch.eye(4, device=device).repeat(2, 1, 1)
    x = torch.randn(8, 5, device=device)
    assert torch.equal(group_mix(x, MixKey(eye, torch.arange(7, -1, -1, device=device))), x.flip(0))
    with pytest.raises(ValueError, match="MixKey: coeffs must be orthogonal"):
        MixKey(2 * eye)
    with pytest.raises(ValueError, match="MixKey: order must be a permutation"):
        MixKey(eye, torch.zeros(8, dtype=torch.int64, device=device))


def test_layers_draw_their_own(device: torch.device) -> None:
    """Where their input lies; linear behind the mix, so that no key shows in the result."""
    conv, fc = MixConv2d(3, 4, 3, group_size=8, activation="relu", pool=2).to(device), UnmixLinear(36, 5).to(device)
    x = torch.randn(16, 3, 8, 8).to(device)
    with torch.no_grad():
        one, two = fc(conv(x).flatten(1)), fc(conv(x).flatten(1))
        plain = F.max_pool2d(torch.relu(F.conv2d(x, conv.weight, conv.bias)), 2)
        plain = F.linear(plain.flatten(1), fc.weight, fc.bias)
        double = [t.cpu().double() for t in (x, conv.weight, conv.bias, fc.weight, fc.bias)]
        exact = F.conv2d(*double[:3]).relu()
        exact = F.linear(F.max_pool2d(exact, 2).flatten(1), *double[3:])
    assert_near(one.cpu(), exact, plain.cpu())
    assert_near(two.cpu(), exact, plain.cpu())
    assert GroupMix(8)(x).device == device
