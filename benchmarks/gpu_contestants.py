"""Who runs what on a GPU: our ops as FACEMIX_BACKEND says, PyTorch eager, torch.compile; all channels_last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from gpu_race import Run, tf32
from gpu_workloads import DTYPES, Job
from peers import ConvMix, LinearUnmix, Mix, Unmix, UnmixLinear, compiled
from torch import Tensor, nn
from torch.nn import functional as F
from workloads import GROUP_SIZE, Convolution, Features, Linear

import facemix_ops
from facemix_ops import MixKey, reference

MODE = "max-autotune-no-cudagraphs"  # of torch.compile: the graphs are ours
# Of the largest value. TF32, and a key in bfloat16, which the peers multiply with, lose more than sums do.
TOLERANCE = {torch.float32: 3e-3, torch.bfloat16: 2e-2}


@dataclass
class Contestant:
    """What it computes, and which gradients are wanted where the job is the backward pass."""

    call: Callable[[], Tensor]
    wanted: list[Tensor] = field(default_factory=list)


def runs(job: Job, device: torch.device, who: set[str]) -> dict[str, Run]:
    """What each of ``who`` ("facemix", "eager", "compile") does, ready to be captured.

    Raises AssertionError, naming the contestant, where one does not compute what the reference does.
    """
    make = {Convolution: convolution, Features: mixing, Linear: linear}[type(job.work)]
    with torch.set_grad_enabled(differentiates(job)):
        contestants, expected = make(job, device, who)
        results = {name: contestant.call() for name, contestant in contestants.items()}
    check(job, results, expected)
    if not differentiates(job):
        return {name: without_gradients(c.call) for name, c in contestants.items()}
    grad = torch.randn_like(expected).to(DTYPES[job.dtype])
    return {
        name: partial(torch.autograd.grad, results[name], c.wanted, grad, retain_graph=True)
        for name, c in contestants.items()
    }


def differentiates(job: Job) -> bool:
    """Whether the pass that is timed is autograd's. The backward pass of a mix is an op of its own."""
    return job.backward and not isinstance(job.work, Features)


def without_gradients(call: Callable[[], Tensor]) -> Run:
    return lambda: torch.no_grad()(call)()


def check(job: Job, results: dict[str, Tensor], expected: Tensor) -> None:
    """Raises AssertionError, naming the contestant, where one is not ``expected`` to rounding."""
    allowed = TOLERANCE[DTYPES[job.dtype]] * expected.abs().max().item()
    for name, result in results.items():
        error = (result.detach().float().view_as(expected) - expected).abs().max().item()
        if not error <= allowed:
            raise AssertionError(f"{job.key}: {name} disagrees by {error:.3g}, allowed {allowed:.3g}")


@contextmanager
def exactly() -> Iterator[None]:
    """float32 as it is, no gradients, and no search for the fastest convolution, which nobody times."""
    cudnn = torch.backends.cudnn
    searches, cudnn.benchmark = cudnn.benchmark, False
    try:
        with tf32(False, cudnn, torch.backends.cuda.matmul), torch.no_grad():
            yield
    finally:
        cudnn.benchmark = searches


def randn(job: Job, device: torch.device, *shape: int) -> Tensor:
    x = torch.randn(shape, device=device).to(DTYPES[job.dtype])
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def peers(name: str, who: set[str], module: Callable[..., nn.Module], inputs: list[Tensor],
          out: Tensor | None = None) -> dict[str, Contestant]:  # fmt: skip
    """``module`` in eager mode, into memory that is kept where there is some, and compiled."""
    found = {}
    for kind, build in (("eager", lambda: module(buffers=out)), ("compile", lambda: compiled(module(), MODE))):
        if kind in who:
            run = build()
            wanted = [x for x in inputs if x.requires_grad] + list(run.parameters())
            found[f"{kind}{name}"] = Contestant(partial(run, *inputs), wanted)
    return found


def ours(who: set[str], call: Callable[..., Tensor], wanted: list[Tensor]) -> dict[str, Contestant]:
    return {"facemix": Contestant(call, wanted)} if "facemix" in who else {}


def convolution(job: Job, device: torch.device, who: set[str]) -> tuple[dict[str, Contestant], Tensor]:
    """The gradients of the backward pass are those of weight and bias: images have none."""
    work: Any = job.work
    x = randn(job, device, work.batch, work.channels, work.height, work.width)
    weight = randn(job, device, work.out_channels, work.channels, work.kernel, work.kernel)
    bias, key = randn(job, device, work.out_channels), MixKey.sample(work.batch, GROUP_SIZE, device=device)
    options = {"stride": work.stride, "padding": work.padding, "activation": "relu", "pool": work.pool}
    with exactly():
        expected = reference.conv_mix(x.float(), weight.float(), bias.float(), key, **options)
        expected = expected.contiguous(memory_format=torch.channels_last)
    out = None if job.backward else torch.empty_like(expected, dtype=x.dtype)
    module = partial(ConvMix, work, weight, bias)
    found = peers("", who, module, [x, key.coeffs.to(x.dtype), key.order.argsort()], out)
    leaves = [nn.Parameter(t, requires_grad=job.backward) for t in (weight, bias)]
    return found | ours(who, partial(facemix_ops.conv_mix, x, *leaves, key, **options), leaves), expected


def mixing(job: Job, device: torch.device, who: set[str]) -> tuple[dict[str, Contestant], Tensor]:
    """Rows of [B, n], as the peers want them."""
    work: Any = job.work
    x = randn(job, device, *work.shape).contiguous().flatten(1)
    key = MixKey.sample(len(x), GROUP_SIZE, device=device)
    op, module = (facemix_ops.group_unmix, Unmix) if job.backward else (facemix_ops.group_mix, Mix)
    with exactly():
        expected = getattr(reference, op.__name__)(x.float(), key)
    index = key.order if job.backward else key.order.argsort()
    found = peers("", who, module, [x, key.coeffs.to(x.dtype), index], torch.empty_like(x))
    return found | ours(who, partial(op, x, key), []), expected


def linear(job: Job, device: torch.device, who: set[str]) -> tuple[dict[str, Contestant], Tensor]:
    """Peers un-mix first, as written, and apply the layer first, which is less work."""
    work: Any = job.work
    y = randn(job, device, work.batch, work.inputs).requires_grad_(job.backward)
    weight, bias = randn(job, device, work.outputs, work.inputs), randn(job, device, work.outputs)
    key = MixKey.sample(work.batch, GROUP_SIZE, device=device)
    with exactly():
        expected = reference.unmix_linear(y.float(), key, weight.float(), bias.float())
    inputs, out = [y, key.coeffs.to(y.dtype), key.order], None if job.backward else torch.empty_like(expected).to(y)
    leaves = [nn.Parameter(t, requires_grad=job.backward) for t in (weight, bias)]
    found = ours(who, partial(facemix_ops.unmix_linear, y, key, *leaves), [y, *leaves] if job.backward else [])
    for name, module in (("/unmix-first", UnmixLinear), ("/linear-first", LinearUnmix)):
        found |= peers(name, who, partial(module, weight, bias), inputs, out)
    return found, expected


def training(model: nn.Module, batch: int, size: int, device: torch.device) -> Run:
    """A training step as users write it: bfloat16 autocast, channels_last, SGD; not captured, keys are drawn anew."""
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x = torch.randn(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = F.cross_entropy(model(x), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step
