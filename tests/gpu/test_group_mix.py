"""group_mix and group_unmix: every group size, dtype, layout, and shapes around the kernels' tiles."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, LAYOUTS, key_for
from on_device import check
from tolerances import assert_near

from facemix_ops import group_mix, group_unmix

OPS = ["group_mix", "group_unmix"]
SIZES = [2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64]
TRAILING = [(), (0,), (1,), (7,), (8,), (255,), (256,), (257,), (1023,), (4096,), (3, 5, 7), (2, 0, 3), (4, 33, 31)]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_group_sizes(device: torch.device, op: str, dtype: torch.dtype, size: int) -> None:
    check(op, device, torch.randn(3 * size, 37).to(dtype), key_for(3 * size, size))


@pytest.mark.small
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("size", [4, 5, 8, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_small(device: torch.device, op: str, size: int, dtype: torch.dtype) -> None:
    check(op, device, torch.randn(2 * size, 3, 13).to(dtype), key_for(2 * size, size))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trailing", TRAILING, ids=str)
def test_shapes(device: torch.device, op: str, dtype: torch.dtype, trailing: tuple[int, ...]) -> None:
    for batch, size in ((16, 8), (10, 5), (0, 8)):
        check(op, device, torch.randn(batch, *trailing).to(dtype), key_for(batch, size))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts(device: torch.device, op: str, layout: str, dtype: torch.dtype) -> None:
    check(op, device, torch.randn(16, 3, 5, 7).to(dtype), key_for(16, 8), layout=layout)


@pytest.mark.parametrize("offset", [1, 2, 3, 4])
def test_rows_that_are_aligned_to_nothing(device: torch.device, offset: int) -> None:
    """A view that begins in the middle of 16 bytes, and rows whose length keeps none aligned."""
    for dtype in DTYPES:
        whole = torch.randn(16 * 41 + 8).to(device, dtype)
        x = whole[offset : offset + 16 * 41].view(16, 41)
        assert torch.equal(group_mix(x, key_for(16, 8).to(device)), group_mix(x.clone(), key_for(16, 8).to(device)))


def test_many_groups(device: torch.device) -> None:
    """More than a grid has blocks in y."""
    check("group_mix", device, torch.randn(70000 * 2, 3), key_for(70000 * 2, 2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(device: torch.device, dtype: torch.dtype) -> None:
    key, x = key_for(64, 16).to(device), torch.randn(64, 3, 9, 9).to(device, dtype)
    loss = torch.finfo(dtype).eps * 8
    assert_near(group_unmix(group_mix(x, key), key).cpu(), x.cpu().double(), (x * (1 + loss)).cpu())


def test_not_finite(device: torch.device) -> None:
    """One NaN spoils its own group's column, and nothing else."""
    key, x = key_for(24, 8), torch.randn(24, 5)
    x[12, 2] = float("nan")
    y = group_mix(x.to(device), key.to(device)).cpu()
    spoilt = torch.zeros(24, 5, dtype=torch.bool)
    spoilt[key.order[8:16], 2] = True
    assert torch.equal(y.isnan(), spoilt)


def test_repeats_bit_for_bit(device: torch.device) -> None:
    key, x = key_for(64, 8).to(device), torch.randn(64, 4097, device=device)
    first = group_mix(x, key)
    assert all(torch.equal(first, group_mix(x, key)) for _ in range(5))
