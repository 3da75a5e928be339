"""conv_mix in both layouts, and its backward: the gradients of weight and bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from onnx_peer import Graph
from peers import ConvMix, Into, compiled
from race import Contestants, with_variants
from torch import Tensor
from workloads import BACKWARD, CONVOLUTIONS, GROUP_SIZE, LAYOUTS, Backward, Convolution

import facemix_ops
from facemix_ops import MixKey, reference


@pytest.mark.parametrize("work", CONVOLUTIONS, ids=lambda work: work.name)
def bench_conv_mix(race: Any, work: Convolution) -> None:
    x, weight, bias, key = inputs(work)
    coeffs, index = key.coeffs.float(), key.order.argsort()
    expected = reference.conv_mix(x, weight, bias, key, **arguments(work))
    contestants: Contestants = {}
    for name, layout in LAYOUTS.items():
        xl, wl = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
        ours = partial(facemix_ops.conv_mix, xl, wl, bias, key, **arguments(work))
        halves = partial(facemix_ops.conv_mix, xl.bfloat16(), wl.bfloat16(), bias.bfloat16(), key, **arguments(work))
        out, out_half = ours(), halves()
        contestants |= with_variants(f"facemix/{name}", partial(ours, out=out))
        contestants |= {
            f"facemix/{name}+bf16-out": partial(ours, out_dtype=torch.bfloat16, out=out_half),
            f"facemix/{name}+bf16": partial(halves, out=out_half),
            f"fresh/{name}": ours,
            f"eager/{name}": partial(ConvMix(work, wl, bias, out), xl, coeffs, index),
            f"compile/{name}": partial(compiled(Into(ConvMix(work, wl, bias))), out, xl, coeffs, index),
        }
    contestants["onnxruntime"] = onnxruntime(work, weight, bias, {"x": x, "coeffs": coeffs, "index": index}, out)
    race("conv_mix", work, contestants, expected)


@pytest.mark.parametrize("work", [BACKWARD], ids=lambda work: work.name)
def bench_conv_mix_backward(race: Any, work: Backward) -> None:
    x, weight, bias, key = inputs(work.forward)
    coeffs, index = key.coeffs.float(), key.order.argsort()
    grad = torch.randn(work.forward.out_shape)
    contestants: Contestants = {}
    yardsticks: Contestants = {}
    with torch.enable_grad():
        for name, layout in LAYOUTS.items():
            xl, wl, gl = (t.contiguous(memory_format=layout) for t in (x, weight, grad))
            eager = ConvMix(work.forward, wl, bias)
            parameters = (eager.weight, eager.bias)
            ours = facemix_ops.conv_mix(xl, *parameters, key, **arguments(work.forward))
            contestants |= with_variants(f"facemix/{name}", gradient(ours, parameters, gl))
            contestants[f"eager/{name}"] = gradient(eager(xl, coeffs, index), parameters, gl)
            contestants[f"compile/{name}"] = gradient(compiled(eager)(xl, coeffs, index), parameters, gl)
            yardsticks[f"convolution/{name}"] = partial(convolution_backward, work.forward, gl, xl, wl)
    race("conv_mix backward", work, contestants, contestants["eager/contiguous"](), yardsticks)


def inputs(work: Convolution) -> tuple[Tensor, Tensor, Tensor, MixKey]:
    """x, weight, bias, and a key."""
    x = torch.randn(work.batch, work.channels, work.height, work.width)
    weight = torch.randn(work.out_channels, work.channels, work.kernel, work.kernel)
    return x, weight, torch.randn(work.out_channels), MixKey.sample(work.batch, GROUP_SIZE)


def arguments(work: Convolution) -> dict[str, Any]:
    return {"stride": work.stride, "padding": work.padding, "activation": "relu", "pool": work.pool}


def gradient(y: Tensor, parameters: tuple[Tensor, ...], grad: Tensor) -> Callable[[], Tensor]:
    """What computes the gradients of all ``parameters``, and returns the first."""
    return lambda: torch.autograd.grad(y, parameters, grad, retain_graph=True)[0]


def convolution_backward(work: Convolution, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """PyTorch's gradients of weight and bias from that of a convolution's result: what PyTorch's backward ends in."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [work.out_channels], [work.stride] * 2, [work.padding] * 2, [1, 1], False, [0, 0], 1,
        [False, True, True],
    )[1]  # fmt: skip


def onnxruntime(
    work: Convolution, weight: Tensor, bias: Tensor, inputs: dict[str, Tensor], out: Tensor
) -> Callable[[], Tensor]:
    """The same in ONNX Runtime; the inputs are x, coeffs and index."""
    graph = Graph()
    graph.then("Conv", graph.constant(weight), graph.constant(bias), strides=[work.stride] * 2, pads=[work.padding] * 4)
    graph.then("Relu")
    if work.pool:
        kernel, stride, padding = work.pool
        graph.then("MaxPool", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)
    columns = math.prod(work.out_shape[1:])
    graph.reshape(work.batch // GROUP_SIZE, GROUP_SIZE, columns).then("MatMul", first="coeffs")
    graph.reshape(work.batch, columns).then("Gather", "index", axis=0).reshape(*work.out_shape)
    return graph.session(inputs, out)
