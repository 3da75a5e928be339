"""Which elements under a window the Triton kernels read at once."""

from __future__ import annotations

import itertools

import pytest
import torch

from facemix_ops.triton import tiles
from facemix_ops.triton.convolution import Runs, runs, taps


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("c", [1, 2, 3, 4, 6, 8, 16])
def test_vectors(c: int, dtype: torch.dtype, last: bool) -> None:
    """They lie at multiples of their length, in one row of the image or outside, and hold what is under the window."""
    found = set()
    for width, kernel, stride, padding, dilation, offset in itertools.product(
        (8, 15, 24), (1, 3, 7, 8), (1, 2, 4), (0, 1, 3, 4), (1, 2), (0, 1)
    ):
        shape = (2, 9, width, c) if last else (2, c, 9, width)
        memory = torch.empty(offset + 2 * 9 * width * c, dtype=dtype)[offset:]
        x = memory.view(shape).permute(0, 3, 1, 2) if last else memory.view(shape)
        along = runs(x, torch.Size((7, kernel)), [2, stride], [3, padding], [1, dilation])
        found.add(along.vector)
        step = c if last and c > 1 else 1
        assert (along.height, along.step) == (7, step)
        assert along.aligned + along.rest == kernel * step
        assert along.aligned % along.vector == 0
        assert along.vector * dtype.itemsize <= tiles.VECTOR
        if along.vector == 1:
            assert (along.start, along.rest) == (0, 0)
            continue
        first = x.data_ptr() // dtype.itemsize
        steps = {x.stride(0), x.stride(2), *([] if last else [x.stride(1)])}
        for ow, at in itertools.product(range(4), range(along.start, along.start + along.aligned, along.vector)):
            pixel, channel = divmod(at, step)
            place = (ow * stride - padding + pixel * dilation) * step + channel
            assert (first + place) % along.vector == 0
            assert not any(n % along.vector for n in steps)
            assert dilation == 1 or channel + along.vector <= step  # else neighbours in the window are none in memory
            assert (place >= 0) == (place + along.vector > 0)
            assert (place < width * step) == (place + along.vector <= width * step)
    assert {1} < found


def test_taps_and_runs_of_a_stem() -> None:
    x = torch.empty(8, 3, 32, 32, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(5, 3, 7, 7)
    along = runs(x, weight.shape[2:], [2, 2], [3, 3], [1, 1])
    assert along == Runs(height=7, step=3, start=1, aligned=20, rest=1, vector=2)
    assert torch.equal(taps(weight, along).view(7, 7, 3, 5), weight.permute(2, 3, 1, 0))
    along = runs(x.contiguous(), weight.shape[2:], [2, 2], [3, 3], [1, 1])
    assert along == Runs(height=7, step=1, start=0, aligned=7, rest=0, vector=1)
    assert torch.equal(taps(weight, along).view(3, 7, 7, 5), weight.permute(1, 2, 3, 0))
