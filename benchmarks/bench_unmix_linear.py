"""unmix_linear; the peers both un-mix first, as written, and apply the layer first, which is less work."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from onnx_peer import Graph
from peers import Into, LinearUnmix, UnmixLinear, compiled
from race import Contestants, with_variants
from workloads import GROUP_SIZE, LINEARS, Linear

import facemix_ops
from facemix_ops import MixKey, reference

PEERS = {"unmix-first": UnmixLinear, "linear-first": LinearUnmix}


@pytest.mark.parametrize("work", LINEARS, ids=lambda work: work.name)
def bench_unmix_linear(race: Any, work: Linear) -> None:
    y = torch.randn(work.batch, work.inputs)
    weight, bias = torch.randn(work.outputs, work.inputs), torch.randn(work.outputs)
    key = MixKey.sample(work.batch, GROUP_SIZE)
    coeffs, index = key.coeffs.float(), key.order
    ours = partial(facemix_ops.unmix_linear, y, key, weight, bias)
    out = ours()
    contestants: Contestants = with_variants("facemix", partial(ours, out=out)) | {"fresh": ours}
    for name, peer in PEERS.items():
        contestants[f"eager/{name}"] = partial(peer(weight, bias, out), y, coeffs, index)
        contestants[f"compile/{name}"] = partial(compiled(Into(peer(weight, bias))), out, y, coeffs, index)

    groups = coeffs.shape[:2]
    unmix_first, linear_first = Graph(), Graph()
    unmix_first.then("Gather", "index", axis=0).reshape(*groups, work.inputs).then("MatMul", first="inverse")
    unmix_first.reshape(*y.shape).then("Gemm", unmix_first.constant(weight), unmix_first.constant(bias), transB=1)
    linear_first.then("MatMul", linear_first.constant(weight.T.contiguous())).then("Gather", "index", axis=0)
    linear_first.reshape(*groups, work.outputs).then("MatMul", first="inverse").reshape(*out.shape)
    linear_first.then("Add", linear_first.constant(bias))
    inputs = {"x": y, "inverse": coeffs.transpose(1, 2).contiguous(), "index": index}
    contestants["onnxruntime/unmix-first"] = unmix_first.session(inputs, out)
    contestants["onnxruntime/linear-first"] = linear_first.session(inputs, out)
    race("unmix_linear", work, contestants, reference.unmix_linear(y, key, weight, bias))
