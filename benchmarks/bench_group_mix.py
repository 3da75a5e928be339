"""group_mix against PyTorch eager and against a plain copy of the same bytes: [256, 64, 56, 56] float32, S = 8."""

import pytest
import torch

import facemix_ops
from facemix_ops import reference


@pytest.mark.parametrize("contestant", ["facemix", "eager", "copy"])
def bench_group_mix(benchmark, group_size: int, contestant: str) -> None:
    benchmark.group = "group_mix"
    x = torch.randn(256, 64, 56, 56)
    out = torch.empty_like(x).copy_(x)
    key = facemix_ops.MixKey.sample(256, group_size)
    if contestant == "copy":
        benchmark(out.copy_, x)
    elif contestant == "eager":
        benchmark(reference.group_mix, x, key)
    else:
        benchmark(facemix_ops.group_mix, x, key, out=out)
