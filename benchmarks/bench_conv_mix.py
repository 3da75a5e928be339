"""conv_mix against PyTorch eager on the first convolutions of known networks. S = 8, float32, ReLU.

"facemix" reuses its output, "fresh" and "eager" cannot.
"""

import pytest
import torch

import facemix_ops
from facemix_ops import reference

# name: B, C, H, W, OC, kernel, stride, padding, pool
WORKLOADS = {
    "resnet-stem": (32, 3, 218, 178, 64, 7, 2, 3, None),
    "resnet-stem-pool": (32, 3, 218, 178, 64, 7, 2, 3, (3, 2, 1)),
    "vgg-conv1": (32, 3, 224, 224, 64, 3, 1, 1, None),
    "vgg-conv2": (16, 64, 112, 112, 64, 3, 1, 1, 2),
    "cifar-conv1": (256, 3, 32, 32, 64, 3, 1, 1, None),
}


@pytest.mark.parametrize("contestant", ["facemix", "fresh", "eager"])
@pytest.mark.parametrize("workload", WORKLOADS)
def bench_conv_mix(benchmark, group_size: int, workload: str, layout: torch.memory_format, contestant: str) -> None:
    batch, c, h, w, oc, kernel, stride, padding, pool = WORKLOADS[workload]
    benchmark.group = f"conv_mix {workload} {layout}"
    x = torch.randn(batch, c, h, w).contiguous(memory_format=layout)
    weight, bias = torch.randn(oc, c, kernel, kernel).contiguous(memory_format=layout), torch.randn(oc)
    args = {"stride": stride, "padding": padding, "activation": "relu", "pool": pool}
    key = facemix_ops.MixKey.sample(batch, group_size)
    if contestant == "eager":
        benchmark(reference.conv_mix, x, weight, bias, key, **args)
    elif contestant == "fresh":
        benchmark(facemix_ops.conv_mix, x, weight, bias, key, **args)
    else:
        out = facemix_ops.conv_mix(x, weight, bias, key, **args)
        benchmark(facemix_ops.conv_mix, x, weight, bias, key, **args, out=out)
