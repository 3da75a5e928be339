"""Keys, tensors and memory layouts that the tests share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from facemix_ops import MixKey

# Second derivatives along random directions: element by element takes most of the time of a check, and sees no more.
gradgradcheck = partial(torch.autograd.gradgradcheck, fast_mode=True)

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
GUARD, POISON = 777.0, float("nan")
WHOLE_GUARD, WHOLE_POISON = 77, -128  # of int8; nothing writes the second
MARGIN = 67  # elements before and after a guarded buffer; odd, so that it is aligned to nothing


def key_for(batch: int, size: int, seed: int = 0) -> MixKey:
    """A reproducible key, with a shuffled order."""
    return MixKey.sample(batch, size, generator=torch.Generator().manual_seed(seed))


def integers(*shape: int, low: int = -4, high: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    """Small whole numbers: exact in every dtype, sums too, with many ties and zeros."""
    return torch.randint(low, high, shape).to(dtype)


def _sliced(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    view = x.new_full((b + 1, c + 2, 2 * h + 1, 3 * w + 2), float("nan"))[1:, 1:-1, 1::2, 1:-1:3]
    return view.copy_(x)


def _channels_last_sliced(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    view = x.new_full((b, h + 2, w + 1, c + 3), float("nan"))[:, 1:-1, 1:, 2:-1].permute(0, 3, 1, 2)
    return view.copy_(x)


# The same values [B, C, H, W] under other strides; gaps are filled with NaN, so that a stray read shows.
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": _sliced,
    "channels_last_sliced": _channels_last_sliced,
    "permuted": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "swapped": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


def guarded_like(result: Tensor) -> tuple[Tensor, Tensor]:
    """A poisoned buffer with the shape and strides of ``result``, and the memory that it lies in."""
    guard, poison = (GUARD, POISON) if result.is_floating_point() else (WHOLE_GUARD, WHOLE_POISON)
    memory = torch.full((result.numel() + 2 * MARGIN,), guard, dtype=result.dtype, device=result.device)
    memory[MARGIN : MARGIN + result.numel()] = poison
    return memory.as_strided(result.shape, result.stride(), MARGIN), memory


def assert_guards(memory: Tensor) -> None:
    """Nothing was written before or behind the buffer."""
    guard = GUARD if memory.is_floating_point() else WHOLE_GUARD
    assert (memory[:MARGIN] == guard).all(), "written before the buffer"
    assert (memory[-MARGIN:] == guard).all(), "written behind the buffer"


def check_out(op: Callable[..., Tensor], *args: object, **kwargs: object) -> Tensor:
    """Runs ``op`` twice, into fresh memory and into a poisoned buffer: the same bits, every element, nothing else."""
    with torch.no_grad():
        result = op(*args, **kwargs)
        out, memory = guarded_like(result)
        assert op(*args, **kwargs, out=out) is out
    assert_guards(memory)
    assert torch.equal(out, result)
    return result
