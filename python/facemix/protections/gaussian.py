"""Normal numbers that a cloud cannot guess."""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

__all__ = ["gaussian", "given", "private_gaussian", "repeatable"]

_DRAW: ContextVar[Callable[[Tensor], Tensor] | None] = ContextVar("what draws noise", default=None)

UNIFORM_BITS = 32


def repeatable(generator: torch.Generator) -> contextlib.AbstractContextManager[None]:
    """Inside the block, in this thread, noise comes from `generator`, which is on the CPU: for measuring and auditing
    on photographs of one's own.
    """
    return _drawn(lambda like: torch.randn(like.shape, generator=generator).to(like))


def given(values: Tensor) -> contextlib.AbstractContextManager[None]:
    """Inside the block, in this thread, noise is `values`, which are expanded: zeros show what is sent beneath it. For
    auditing on photographs of one's own.
    """
    return _drawn(lambda like: values.expand(like.shape).to(like))


@contextlib.contextmanager
def _drawn(draw: Callable[[Tensor], Tensor]) -> Iterator[None]:
    token = _DRAW.set(draw)
    try:
        yield
    finally:
        _DRAW.reset(token)


def gaussian(like: Tensor) -> Tensor:
    """N(0, 1) of the shape, dtype and device of `like`; from the operating system, but for `repeatable` and `given`."""
    return (_DRAW.get() or private_gaussian)(like)


def private_gaussian(like: Tensor) -> Tensor:
    """N(0, 1) like `like` from the operating system's CSPRNG, by the transform of Box and Muller (1958).

    The state of PyTorch's generator, and of any other that is made for simulations, follows from its numbers; and
    where nobody seeds it, every process starts with the same. Who knows a corner of an image, a black one say, reads
    the numbers there off what is sent, and would have those of all other pixels.
    """
    pairs = (like.numel() + 1) // 2
    drawn = torch.frombuffer(bytearray(secrets.token_bytes(8 * pairs)), dtype=torch.int32) if pairs else torch.empty(0)
    uniform = (drawn.double().view(2, pairs) + 2 ** (UNIFORM_BITS - 1) + 0.5) / 2**UNIFORM_BITS  # 0 < u < 1
    radius, angle = (-2 * uniform[0].log()).sqrt(), 2 * math.pi * uniform[1]
    values = torch.cat((radius * angle.cos(), radius * angle.sin()))
    return values[: like.numel()].view(like.shape).to(like)
