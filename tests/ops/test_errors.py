"""Every wrong argument of every op: the error's type, and a message that names op, argument and rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import key_for
from torch import nn

import facemix_ops
from facemix_ops import MixKey, sample_orthogonal

X = torch.zeros(4, 3, 6, 6)
W = torch.zeros(2, 3, 3, 3)
B = torch.zeros(2)
C = torch.zeros(3)
V = torch.zeros(7, 6)
GOOD: dict[str, dict[str, Any]] = {
    "conv_mix": {"x": X, "weight": W, "bias": B},
    "act_mix": {"x": X},
    "group_mix": {"x": X},
    "group_unmix": {"y": X},
    "unmix_linear": {"y": X, "weight": V},
}
BAD_TENSOR = [
    (TypeError, [1.0], "must be a Tensor, got list"),
    (TypeError, X.int(), "must be float32, float64, bfloat16 or float16, got torch.int32"),
    (TypeError, X.to(torch.complex64), "must be float32, .* got torch.complex64"),
    (TypeError, X.bool(), "must be float32"),
]
CASES: list[tuple[str, str, Any, type[Exception], str]] = [
    *((op, next(iter(args)), v, e, m) for op, args in GOOD.items() for e, v, m in BAD_TENSOR),
    ("conv_mix", "x", X[0], ValueError, r"must have 4 dimensions, got shape \[3, 6, 6\]"),
    ("conv_mix", "x", X[None], ValueError, "must have 4 dimensions"),
    ("conv_mix", "x", X[:, :, :0], ValueError, r"must have no empty dimension but the batch, got shape \[4, 3, 0, 6\]"),
    ("conv_mix", "weight", W.tolist(), TypeError, "must be a Tensor"),
    ("conv_mix", "weight", W[0], ValueError, "must have 4 dimensions"),
    ("conv_mix", "weight", W[:, :2], ValueError, r"must have shape \[OC, 3, KH, KW\] .*got \[2, 2, 3, 3\]"),
    ("conv_mix", "weight", W.double(), TypeError, "must have dtype torch.float32, got torch.float64"),
    ("conv_mix", "weight", W.to("meta"), ValueError, "must be on cpu, got meta"),
    ("conv_mix", "weight", torch.zeros(2, 3, 7, 3), ValueError, r"must span .* at most the padded input \[6, 6\]"),
    ("conv_mix", "weight", torch.zeros(2, 3, 0, 3), ValueError, "must span at least 1"),
    ("conv_mix", "bias", 0.0, TypeError, "must be a Tensor, got float"),
    ("conv_mix", "bias", B.double(), TypeError, "must have dtype torch.float32"),
    ("conv_mix", "bias", C, ValueError, r"must have shape \[2\], got \[3\]"),
    ("conv_mix", "bias", B[None], ValueError, "must have 1 dimension"),
    ("conv_mix", "stride", 0, ValueError, "must be at least 1, got 0"),
    ("conv_mix", "stride", (1, -1), ValueError, "must be at least 1"),
    ("conv_mix", "stride", 1.5, TypeError, "must be an int or a pair of ints, got 1.5"),
    ("conv_mix", "stride", (1, 2, 3), ValueError, "must be an int or a pair of ints"),
    ("conv_mix", "stride", None, TypeError, "must be an int or a pair of ints, got None"),
    ("conv_mix", "stride", True, TypeError, "must be an int or a pair of ints"),
    ("conv_mix", "stride", (True, 1), TypeError, "must be an int or a pair of ints"),
    ("conv_mix", "dilation", 0, ValueError, "must be at least 1"),
    ("conv_mix", "dilation", "2", TypeError, "must be an int or a pair of ints"),
    ("conv_mix", "padding", -1, ValueError, "must be at least 0"),
    ("conv_mix", "padding", 0.5, TypeError, "must be an int or a pair of ints"),
    ("conv_mix", "padding", "full", ValueError, 'must be an int, a pair, "same" or "valid", got full'),
    ("conv_mix", "out_dtype", torch.float64, TypeError, "must be .*float32.* got torch.float64"),
    ("conv_mix", "out_dtype", "float16", TypeError, "must be"),
    ("act_mix", "x", X[0], ValueError, "must have 4 dimensions"),
    ("act_mix", "scale", 2.0, TypeError, "must be a Tensor"),
    ("act_mix", "scale", torch.zeros(4), ValueError, r"must have shape \[3\], got \[4\]"),
    ("act_mix", "scale", C.double(), TypeError, "must have dtype torch.float32 for torch.float32 input"),
    ("act_mix", "shift", C[None], ValueError, "must have 1 dimension"),
    ("act_mix", "shift", C.half(), TypeError, "must have dtype torch.float32"),
    ("act_mix", "shift", C.to("meta"), ValueError, "must be on cpu"),
    ("act_mix", "residual", X[:2], ValueError, r"must have shape \[4, 3, 6, 6\], got \[2, 3, 6, 6\]"),
    ("act_mix", "residual", X.double(), TypeError, "must have dtype torch.float32"),
    ("act_mix", "out_dtype", torch.int8, TypeError, "must be"),
    ("unmix_linear", "y", torch.zeros(4), ValueError, r"must have shape \[B, ..., 6\]"),
    ("unmix_linear", "y", torch.zeros(4, 5), ValueError, r"must have shape \[B, ..., 6\] .* got \[4, 5\]"),
    ("unmix_linear", "weight", V.double(), TypeError, "must have dtype torch.float32"),
    ("unmix_linear", "weight", V[0], ValueError, "must have 2 dimensions"),
    ("unmix_linear", "weight", None, TypeError, "must be a Tensor, got NoneType"),
    ("unmix_linear", "bias", B, ValueError, r"must have shape \[7\], got \[2\]"),
    ("unmix_linear", "bias", V[:, 0].half(), TypeError, "must have dtype torch.float32"),
    *(
        (op, "activation", v, e, m)
        for op in ("conv_mix", "act_mix")
        for e, v, m in [
            (TypeError, "gelu", "must be None, .* got 'gelu'"),
            (TypeError, nn.GELU(), "must be None, .* got GELU"),
            (TypeError, torch.relu, "must be None"),
            (TypeError, ("leaky_relu", "0.1"), "must be None"),
            (TypeError, ("prelu", torch.ones(1, dtype=torch.int64)), "must"),
            (ValueError, nn.PReLU(3), "must have one slope for all channels, got a PReLU with 3"),
        ]
    ),
    *(
        (op, "pool", v, e, m)
        for op in ("conv_mix", "act_mix")
        for e, v, m in [
            (TypeError, "2", r"must be None, an int, \(kernel"),
            (TypeError, (2, 2), r"must be None, an int, \(kernel"),
            (TypeError, True, r"must be None, an int, \(kernel"),
            (TypeError, nn.AvgPool2d(2), r"must be None, an int, \(kernel"),
            (TypeError, (2.0, 1, 0), "kernel must be an int or a pair of ints"),
            (ValueError, 0, "kernel must be at least 1"),
            (ValueError, (2, 0, 0), "stride must be at least 1"),
            (ValueError, (2, 1, -1), "padding must be at least 0"),
            (ValueError, (3, 1, 2), "padding must be at most half of the kernel"),
            (ValueError, 7, "kernel must fit in the padded map"),
            (ValueError, (12, 1, 0), "kernel must have at most 127 elements"),
            (ValueError, nn.MaxPool2d(2, ceil_mode=True), "must have no ceil_mode, dilation or return_indices"),
            (ValueError, nn.MaxPool2d(2, dilation=2), "must have no ceil_mode"),
            (ValueError, nn.MaxPool2d(2, return_indices=True), "must have no ceil_mode"),
        ]
    ),
]


@pytest.mark.parametrize(("op", "argument", "value", "error", "message"), CASES)
def test_arguments(op: str, argument: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{op}: {argument} {message}"):
        getattr(facemix_ops, op)(**{**GOOD[op], argument: value}, key=key_for(4, 2))


@pytest.mark.parametrize("op", ["group_mix", "group_unmix"])
def test_scalars_have_no_rows(op: str) -> None:
    with pytest.raises(ValueError, match=f"^{op}: key must be for as many rows as [xy] has: none, a scalar, got 4 "):
        getattr(facemix_ops, op)(torch.zeros(()), key_for(4, 2))


def test_same_padding_needs_stride_1() -> None:
    with pytest.raises(ValueError, match=r'^conv_mix: padding must not be "same" for strided convolutions'):
        facemix_ops.conv_mix(X, W, B, key_for(4, 2), padding="same", stride=(1, 2))


@pytest.mark.parametrize("op", GOOD)
def test_keys(op: str) -> None:
    """Another batch, no key at all, coefficients alone, a closed key, another device."""
    call = getattr(facemix_ops, op)
    good = key_for(4, 2)
    call(**GOOD[op], key=good)
    rows = r"key must be for as many rows as [xy] has: 4, got 8 \(4 groups of 2\)"
    with pytest.raises(ValueError, match=f"^{op}: {rows}"):
        call(**GOOD[op], key=key_for(8, 2))
    for bad in (None, good.coeffs, (good.coeffs, good.order)):
        with pytest.raises(TypeError, match=f"^{op}: key must be a facemix_ops.MixKey, got"):
            call(**GOOD[op], key=bad)
    with pytest.raises(ValueError, match=f"^{op}: key must be on the device of [xy], cpu, got meta"):
        call(**GOOD[op], key=good.to("meta"))
    good.close()
    with pytest.raises(ValueError, match=f"^{op}: key must be open, got a closed key"):
        call(**GOOD[op], key=good)


def test_messages_show_no_values() -> None:
    """A tensor in the wrong place is described by dtype and shape: it may be a secret."""
    with pytest.raises(TypeError) as caught:
        MixKey(torch.eye(2)[None], torch.tensor([123456, 234567, 345678]))
    assert "123456" not in str(caught.value)
    with pytest.raises(TypeError) as caught:
        facemix_ops.conv_mix(X, W, B, key_for(4, 2), stride=torch.tensor(123456))
    assert "123456" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "args", "kwargs"),
    [
        (TypeError, ("2", 3), {}), (TypeError, (2, "3"), {}), (TypeError, (2.0, 3), {}), (TypeError, (True, 3), {}),
        (ValueError, (-1, 3), {}), (ValueError, (2, 0), {}), (TypeError, (2, 3), {"max_coeff": "1"}),
        (TypeError, (2, 3), {"generator": 5}),
    ],
)  # fmt: skip
def test_sample_orthogonal(error: type[Exception], args: tuple[Any, ...], kwargs: Any) -> None:
    with pytest.raises(error, match=r"^sample_orthogonal: .* must"):
        sample_orthogonal(*args, **kwargs)


def test_raw_ops_check_the_order() -> None:
    """Below the Python checks, what would write out of bounds or leave rows unwritten is caught."""
    key = key_for(4, 2)
    for order in ([0, 1, 2, 4], [0, 1, 2, -1], [0, 1, 1, 2]):
        with pytest.raises(ValueError, match=r"order must be a permutation of 0\.\.3"):
            torch.ops.facemix_ops.group_mix(torch.randn(4, 3), key.coeffs, torch.tensor(order))


def test_rows_past_32_bits() -> None:
    """The kernels index a strip of the input by 32 bits; a stride that would need more is refused, not wrapped."""
    with pytest.raises(ValueError, match=r"^conv_mix: x must have at most 2\^30 padded elements under one row"):
        facemix_ops.conv_mix(X, torch.zeros(2, 3, 1, 1), None, key_for(4, 2), stride=2**26, padding=2**30)
