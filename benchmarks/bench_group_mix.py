"""group_mix and group_unmix alone, beside a plain copy of the same bytes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from onnx_peer import Graph
from peers import Into, Mix, Unmix, compiled
from race import Contestants, with_variants
from workloads import GROUP_SIZE, MIXING

import facemix_ops
from facemix_ops import MixKey, reference


def bench_group_mix(race: Any) -> None:
    x, key = torch.randn(MIXING.shape).flatten(1), MixKey.sample(MIXING.shape[0], GROUP_SIZE)
    coeffs, index = key.coeffs.float(), key.order.argsort()
    out = facemix_ops.group_mix(x, key)
    graph = Graph().reshape(*coeffs.shape[:2], x.shape[1]).then("MatMul", first="coeffs")
    graph.reshape(*x.shape).then("Gather", "index", axis=0)
    contestants: Contestants = with_variants("facemix", partial(facemix_ops.group_mix, x, key, out=out)) | {
        "fresh": partial(facemix_ops.group_mix, x, key),
        "eager": partial(Mix(out), x, coeffs, index),
        "compile": partial(compiled(Into(Mix())), out, x, coeffs, index),
        "onnxruntime": graph.session({"x": x, "coeffs": coeffs, "index": index}, out),
    }
    race("group_mix", MIXING, contestants, reference.group_mix(x, key), {"copy": partial(out.copy_, x)})


def bench_group_unmix(race: Any) -> None:
    y, key = torch.randn(MIXING.shape).flatten(1), MixKey.sample(MIXING.shape[0], GROUP_SIZE)
    coeffs, index = key.coeffs.float(), key.order
    out = facemix_ops.group_unmix(y, key)
    graph = Graph().then("Gather", "index", axis=0).reshape(*coeffs.shape[:2], y.shape[1])
    graph.then("MatMul", first="inverse").reshape(*y.shape)
    inverse = coeffs.transpose(1, 2).contiguous()
    contestants: Contestants = with_variants("facemix", partial(facemix_ops.group_unmix, y, key, out=out)) | {
        "fresh": partial(facemix_ops.group_unmix, y, key),
        "eager": partial(Unmix(out), y, coeffs, index),
        "compile": partial(compiled(Into(Unmix())), out, y, coeffs, index),
        "onnxruntime": graph.session({"x": y, "inverse": inverse, "index": index}, out),
    }
    race("group_unmix", MIXING, contestants, reference.group_unmix(y, key), {"copy": partial(out.copy_, y)})
