"""Threads and instruction sets: the same bits whatever the number of threads, the same values on every capability."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import LAYOUTS, key_for
from tolerances import assert_near
from torch import Tensor

from facemix_ops import MixKey, act_mix, conv_mix, group_mix, group_unmix, reference, unmix_linear
from facemix_ops.native import C


def everything(x: Tensor, key: MixKey) -> list[Tensor]:
    """Results and gradients of every op on [B, 3, H, W]."""
    dtype = x.dtype
    g = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_()

    w, b, v = randn(21, 3, 5, 3), randn(21), randn(10, x.shape[-1])
    scale = randn(3).detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    inputs = [x.detach().requires_grad_(), w, b, v, scale]
    x = inputs[0]
    results = [
        conv_mix(x, w, b, key, padding=2, activation="relu", pool=(3, 2, 1)),
        conv_mix(x, w, b, key, stride=2),
        act_mix(x, key, scale=scale, residual=x, activation="leaky_relu", pool=(3, 2, 1)),
        act_mix(x, key, scale=scale),
        group_mix(x, key),
        group_unmix(x, key),
        unmix_linear(x, key, v),
    ]
    return [r.detach() for r in results]


def gradients(x: Tensor, key: MixKey) -> list[Tensor]:
    """Gradients through our own kernels (PyTorch's convolutions may differ with the number of threads)."""
    x = x.detach().requires_grad_()
    y = act_mix(x, key, activation="relu", pool=(3, 2, 1))
    (first,) = torch.autograd.grad(y, x, torch.ones_like(y))
    (second,) = torch.autograd.grad(group_mix(x, key), x, x.detach())
    return [first, second]


@pytest.fixture(params=["contiguous", "channels_last"])
def x(request: pytest.FixtureRequest) -> Tensor:
    return LAYOUTS[request.param](torch.randn(24, 3, 37, 41))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_number_of_threads(x: Tensor, dtype: torch.dtype) -> None:
    """1, 2, 3 and 7 threads: the same bits."""
    x, key = x.to(dtype), key_for(24, 8)
    torch.set_num_threads(1)
    expected = everything(x, key) + gradients(x, key)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for result, first in zip(everything(x, key) + gradients(x, key), expected, strict=True):
            assert torch.equal(result, first)


def test_many_callers(x: Tensor) -> None:
    """Eight Python threads at once, whose calls compete for the pool: every result right, to the bit."""
    keys = [key_for(24, 8, seed) for seed in range(8)]
    expected = [everything(x, key) for key in keys]
    barrier = threading.Barrier(8)

    def work(i: int) -> bool:
        barrier.wait()
        return all(
            all(map(torch.equal, everything(x, keys[i]), expected[i])) for _ in range(3)
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@pytest.fixture
def capability() -> Iterator[str]:
    """The capability in use, restored afterwards."""
    before = C.capability()
    yield before
    C.use_capability(before)


@pytest.mark.parametrize("name", C.available_capabilities())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_every_capability(capability: str, name: str, dtype: torch.dtype, layout: str) -> None:
    """The widest is used by all other tests; here every one that this CPU has, on a reduced set."""
    C.use_capability(name)
    assert C.capability() == name
    kwargs = {"stride": (1, 2), "padding": 1, "activation": "relu", "pool": (3, 2, 1)}
    for size in (2, 5, 8):
        key = key_for(2 * size, size)
        for oc in (1, 3, 4, 5, 8, 9, 15, 17, 31, 32, 33):
            x = LAYOUTS[layout](torch.randn(2 * size, 2, 4, 11)).to(dtype)
            w, b = torch.randn(oc, 2, 3, 2).to(dtype), torch.randn(oc).to(dtype)
            expected = reference.conv_mix(x.double(), w.double(), b.double(), key, **kwargs)
            assert_near(conv_mix(x, w, b, key, **kwargs), expected, reference.conv_mix(x, w, b, key, **kwargs))
            plain = reference.conv_mix(x, w, b, key, padding=2)
            assert_near(
                conv_mix(x, w, b, key, padding=2),
                reference.conv_mix(x.double(), w.double(), b.double(), key, padding=2),
                plain,
            )
        for n in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 67):
            x, v = torch.randn(2 * size, 3, n).to(dtype), torch.randn(9, n).to(dtype)
            assert_near(group_mix(x, key), reference.group_mix(x.double(), key), reference.group_mix(x, key))
            assert_near(
                unmix_linear(x, key, v),
                reference.unmix_linear(x.double(), key, v.double()),
                reference.unmix_linear(x, key, v),
            )
            image = LAYOUTS[layout](torch.randn(2 * size, n, 4, 5)).to(dtype)
            assert_near(
                act_mix(image, key, activation="relu", pool=2),
                reference.act_mix(image.double(), key, activation="relu", pool=2),
                reference.act_mix(image, key, activation="relu", pool=2),
            )
            assert_near(
                act_mix(image, key, activation="relu"),
                reference.act_mix(image.double(), key, activation="relu"),
                reference.act_mix(image, key, activation="relu"),
            )


def test_unknown_capability(capability: str) -> None:
    with pytest.raises(ValueError, match=r"capability must be one of (baseline|neon).* got sse9"):
        C.use_capability("sse9")
    assert C.capability() == capability
    assert C.available_capabilities()[0] == C.compiled_capabilities()[0]
    assert set(C.available_capabilities()) <= set(C.compiled_capabilities())
