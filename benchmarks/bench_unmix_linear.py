"""unmix_linear against PyTorch eager: 512 -> 80, S = 8, float32."""

import pytest
import torch

import facemix_ops
from facemix_ops import reference


@pytest.mark.parametrize("batch", [32, 256, 4096])
def bench_unmix_linear(benchmark, group_size: int, batch: int, contestant: str) -> None:
    benchmark.group = f"unmix_linear {batch}"
    y, weight, bias = torch.randn(batch, 512), torch.randn(80, 512), torch.randn(80)
    key = facemix_ops.MixKey.sample(batch, group_size)
    if contestant == "eager":
        benchmark(reference.unmix_linear, y, key, weight, bias)
    else:
        out = facemix_ops.unmix_linear(y, key, weight, bias)
        benchmark(facemix_ops.unmix_linear, y, key, weight, bias, out=out)
