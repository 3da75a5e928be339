"""CUDA graphs, streams, devices: ops run where and when they are told to, and never wait for the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from cases import DTYPES, key_for
from on_device import OPS, assert_as_the_reference, calls
from torch import Tensor

import facemix_ops
from facemix_ops import MixKey, group_mix
from facemix_ops.native import C
from facemix_ops.ops.library import DTYPE_CODE

SLEEP = 20_000_000  # cycles of the device's clock: some milliseconds


def captured(device: torch.device, run: Callable[[], Any]) -> Callable[[], Any]:
    """``run`` as a graph that is replayed; on the CPU ``run`` itself."""
    if device.type != "cuda":
        return run
    torch.cuda.synchronize(device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        run()
        run()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = run()

    def replay() -> Any:
        graph.replay()
        return results

    return replay


@contextmanager
def never_waiting(device: torch.device) -> Iterator[None]:
    """PyTorch raises where anything waits for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.small
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("size", [4, 5, 8])
def test_replays_with_new_inputs_and_keys(device: torch.device, op: str, size: int) -> None:
    """The graph reads what lies in its inputs now: images, weights, a trained slope, and the key."""
    for dtype in (torch.float32, torch.bfloat16):
        call, tensors = calls(dtype, 4 * size)[op]
        there, key = [t.to(device) for t in tensors], key_for(4 * size, size).to(device)
        with torch.no_grad():
            replay = captured(device, lambda: call(key, *there))  # noqa: B023
            for seed in range(1, 4):
                fresh = key_for(4 * size, size, seed)
                key.coeffs.copy_(fresh.coeffs)
                key.order.copy_(fresh.order)
                for t in there:
                    t.copy_(torch.randn(t.shape))
                result = replay().clone()
                assert torch.equal(result, call(key, *there))
                assert_as_the_reference(op, result, fresh, there)


@pytest.mark.parametrize("op", OPS)
def test_replays_of_derivatives(device: torch.device, op: str) -> None:
    call, tensors = calls()[op]
    there, key = [t.to(device).requires_grad_() for t in tensors], key_for(16, 8).to(device)

    def run() -> tuple[Tensor, ...]:
        return torch.autograd.grad(call(key, *there).square().sum(), there)

    replay = captured(device, run)
    for _ in range(2):
        with torch.no_grad():
            there[0].copy_(torch.randn(there[0].shape))
        for a, b in zip(replay(), run(), strict=True):
            torch.testing.assert_close(a, b)  # PyTorch's own convolution may add in another order


@pytest.mark.parametrize("op", OPS)
def test_nothing_waits_for_the_device(device: torch.device, op: str) -> None:
    """Neither a call nor its backward: a trained slope and the order stay there."""
    call, tensors = calls()[op]
    there, key = [t.to(device).requires_grad_() for t in tensors], key_for(16, 8).to(device)
    seed = torch.randn_like(call(key, *there))
    with never_waiting(device):
        call(key, *there).backward(seed)


def test_keys_for_training_are_drawn_in_a_graph(device: torch.device) -> None:
    """By the CUDA kernels: without waiting, and at every replay others. Triton has none, and the CPU draws."""
    cuda = device.type == "cuda"
    generator = torch.cuda.default_generators[device.index] if cuda else torch.default_generator
    there = cuda and os.environ.get("FACEMIX_BACKEND", "native") == "native"

    def run() -> tuple[Tensor, Tensor]:
        key = MixKey.sample(64, 8, generator=generator)
        return key.coeffs, key.order

    run()
    with never_waiting(device) if there else nullcontext():
        run()
    replay = captured(device, run) if there else run
    keys = [[t.clone() for t in replay()] for _ in range(3)]
    for coeffs, order in keys:
        assert (coeffs.mT @ coeffs - torch.eye(8, dtype=coeffs.dtype, device=device)).abs().max() < 1e-12
        assert torch.equal(order.sort().values, torch.arange(64, device=device))
    for one, two in pairwise(keys):
        assert not torch.equal(one[0], two[0])
        assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("op", OPS)
def test_side_stream(device: torch.device, op: str) -> None:
    """On a stream that is busy, behind what it still has to do: inputs that are not there yet are waited for."""
    call, tensors = calls()[op]
    there, key = [t.to(device) for t in tensors], key_for(16, 8).to(device)
    late = there[0].clone()
    there[0].fill_(float("nan"))
    with torch.no_grad():
        call(key, *there)  # what is compiled or loaded at the first call must not hide a race
        if device.type == "cuda":
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side) if device.type == "cuda" else nullcontext():
            if device.type == "cuda":
                torch.cuda._sleep(SLEEP)
            there[0].copy_(late)
            result = call(key, *there).cpu()
    assert_as_the_reference(op, result, key_for(16, 8), tensors)


@pytest.mark.parametrize("op", OPS)
def test_another_device(device: torch.device, op: str) -> None:
    """Tensors decide, not the current device, which is left as it was. With one device there is no other."""
    call, tensors = calls()[op]
    if torch.cuda.device_count() < 2:
        with pytest.raises((RuntimeError, AssertionError)):  # PyTorch's own; an assertion where it has no CUDA
            torch.empty(1, device="cuda:1")
        return
    other = torch.device("cuda", 1)
    there, key = [t.to(other) for t in tensors], key_for(16, 8).to(other)
    with torch.no_grad():
        result = call(key, *there)
    assert result.device == other
    assert torch.cuda.current_device() == 0
    assert_as_the_reference(op, result, key_for(16, 8), tensors)


def test_an_error_of_cuda_names_the_op(device: torch.device) -> None:
    """And leaves the context usable."""
    x, key = torch.randn(8, 5, device=device), key_for(8, 4).to(device)
    coeffs, order = key.coeffs, key.order
    args = (x.data_ptr(), x.data_ptr(), DTYPE_CODE[x.dtype], 5, False, coeffs.data_ptr(), order.data_ptr(), (2, 4))
    with pytest.raises((RuntimeError, ValueError), match=r"^group_mix: "):
        C.group_mix(*args, (99, 0))
    assert group_mix(x, key).isfinite().all()


@pytest.mark.parametrize("op", OPS)
def test_a_key_on_the_wrong_device_is_refused(device: torch.device, op: str) -> None:
    call, tensors = calls()[op]
    other = "cpu" if device.type == "cuda" else "meta"
    with pytest.raises(ValueError, match=f"{op}: key must be on the device of ., {device}, got {other}"):
        call(key_for(16, 8).to(other), *[t.to(device) for t in tensors])


@pytest.mark.parametrize("op", ["conv_mix", "unmix_linear"])
def test_weights_on_the_wrong_device_are_refused(device: torch.device, op: str) -> None:
    call, tensors = calls()[op]
    there = [t.to(device) for t in tensors]
    there[1] = there[1].to("cpu" if device.type == "cuda" else "meta")
    with pytest.raises(ValueError, match=f"{op}: weight must be on {device}"):
        call(key_for(16, 8).to(device), *there)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_kernels_are_those_that_were_asked_for(device: torch.device, op: str, dtype: torch.dtype) -> None:
    """FACEMIX_BACKEND, where it is set, is what explain says; nothing runs the slow reference in silence."""
    said = facemix_ops.explain(op, torch.empty(8, 3, 4, 4, dtype=dtype, device=device))
    wish = os.environ.get("FACEMIX_BACKEND", "native")
    assert said.startswith(f"{op} on {device.type}: {wish} "), said
