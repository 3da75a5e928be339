"""Tensors past 2^31 elements; on the CPU, where the tests themselves are tried, small ones."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest
import torch
from cases import key_for
from tolerances import assert_near
from torch import Tensor

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, reference, unmix_linear

BATCH, SIZE = 16, 8
EDGE = 24  # columns, or pixels, to look at on each side of a place


@pytest.fixture(autouse=True)
def _memory(device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One test at a time, whichever process runs it: what it allocated is gone before the next.

    By a lock, as pytest-xdist's groups wait for ever where a process has ended.
    """
    with (tmp_path_factory.getbasetemp().parent / "large").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        if device.type == "cuda":
            torch.cuda.empty_cache()


def random(device: torch.device, *shape: int) -> Tensor:
    """bfloat16, drawn where it is used: seconds rather than minutes."""
    return torch.empty(shape, dtype=torch.bfloat16, device=device).normal_()


def places(columns: int) -> list[slice]:
    """The ends of a row of so many elements, and where the offset from the first row passes a power of two."""
    bits = [2**31 - row * columns for row in range(BATCH)] + [2**32 - row * columns for row in range(BATCH)]
    middles = {0, columns // 2, columns, *(b for b in bits if 0 < b < columns)}
    return [slice(max(0, m - EDGE), m + EDGE) for m in sorted(middles)]


def test_group_mix(device: torch.device) -> None:
    n = (2**28 if device.type == "cuda" else 2**12) + 8
    x, key = random(device, BATCH, n), key_for(BATCH, SIZE)
    assert device.type == "cpu" or x.numel() > 2**32
    for op in (group_mix, group_unmix):
        y, spec = op(x, key.to(device)), getattr(reference, op.__name__)
        for where in places(n):
            part = x[:, where].cpu()
            assert_near(y[:, where].cpu(), spec(part.double(), key), spec(part, key))
        del y


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_conv_mix_with_a_large_result(device: torch.device, layout: torch.memory_format) -> None:
    """64 channels of 224x224: the last image's offset is past 2^31."""
    batch = 704 if device.type == "cuda" else 16
    x = random(device, batch, 3, 224, 224).contiguous(memory_format=layout)
    w, b, key = random(device, 64, 3, 3, 3), random(device, 64), key_for(batch, SIZE)
    y = conv_mix(x, w, b, key.to(device), padding=1, activation="relu")
    assert device.type == "cpu" or y.numel() > 2**31
    for group in (0, batch // SIZE - 1):
        rows = slice(group * SIZE, (group + 1) * SIZE)
        alone = MixKey(key.coeffs[group : group + 1])
        z = [t.cpu() for t in (x[rows, :, -32:], w, b)]
        expected = reference.conv_mix(*[t.double() for t in z], alone, padding=1, activation="relu")
        plain = reference.conv_mix(*z, alone, padding=1, activation="relu")
        result = y[key.order[rows].to(device)].cpu()
        assert_near(result[:, :, -30:], expected[:, :, -30:], plain[:, :, -30:])


def test_act_mix_and_its_gradient(device: torch.device) -> None:
    """Pooled, so that the gradient finds its way past 2^31 by codes."""
    side = 2048 if device.type == "cuda" else 32
    x, key = random(device, BATCH, 65, side, side).requires_grad_(), key_for(BATCH, SIZE)
    y = act_mix(x, key.to(device), activation="relu", pool=2)
    assert device.type == "cpu" or x.numel() > 2**32
    seed = random(device, *y.shape)
    (grad,) = torch.autograd.grad(y, x, seed)
    corner = (slice(None), slice(-1, None), slice(-EDGE, None), slice(-EDGE, None))
    half = (slice(None), slice(-1, None), slice(-EDGE // 2, None), slice(-EDGE // 2, None))
    part = x.detach()[corner].cpu()
    exact, plain = part.double().requires_grad_(), part.clone().requires_grad_()
    expected = reference.act_mix(exact, key, activation="relu", pool=2)
    loose = reference.act_mix(plain, key, activation="relu", pool=2)
    assert_near(y.detach()[half].cpu(), expected.detach(), loose.detach())
    cut = seed[half].cpu()
    (e,), (p,) = torch.autograd.grad(expected, exact, cut.double()), torch.autograd.grad(loose, plain, cut)
    assert_near(grad[corner].cpu(), e, p)


def test_unmix_linear(device: torch.device) -> None:
    middle = 2**22 if device.type == "cuda" else 64
    y, w, key = random(device, BATCH, middle, 72), random(device, 3, 72), key_for(BATCH, SIZE)
    assert device.type == "cpu" or y.numel() > 2**32
    out = unmix_linear(y, key.to(device), w)
    for where in places(middle):
        part = y[:, where].cpu()
        expected = reference.unmix_linear(part.double(), key, w.cpu().double())
        assert_near(out[:, where].cpu(), expected, reference.unmix_linear(part, key, w.cpu()))
