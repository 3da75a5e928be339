"""MixConv2d, GroupMix, UnmixLinear, GroupUnmix against the plain layers, under explicit keys."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from cases import LAYOUTS, key_for
from tolerances import assert_near
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from facemix_ops import GroupMix, GroupUnmix, MixConv2d, MixKey, UnmixLinear, group_mix, group_unmix

CONVS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)},
    {"padding": "same"},
    {"padding": "same", "dilation": (2, 1), "kernel_size": (2, 4)},
    {"padding": "valid", "bias": False},
    {"groups": 2, "padding": 1},
    {"groups": 4, "padding": 1, "bias": False},
    {"padding": 2, "padding_mode": "reflect"},
    {"padding": (1, 2), "padding_mode": "circular", "stride": 2},
    {"padding": "same", "padding_mode": "replicate", "kernel_size": 4},
    {"padding": 1, "padding_mode": "reflect", "groups": 2},
]
ACTIVATIONS = [None, "relu", ("leaky_relu", 0.2), "leaky_relu", nn.ReLU(), nn.LeakyReLU(0.3), nn.PReLU()]


def as_module(activation: Any) -> nn.Module:
    match activation:
        case None:
            return nn.Identity()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU()
        case ("leaky_relu", slope):
            return nn.LeakyReLU(slope)
    return activation


def twins(
    activation: Any = None, pool: Any = None, norm: nn.Module | None = None, **conv: Any
) -> tuple[MixConv2d, nn.Sequential]:
    """A mixing layer in float64, and the plain layers that it stands for, with equal but separate parameters."""
    kernel = conv.pop("kernel_size", 3)
    layer = MixConv2d(4, 8, kernel, group_size=3, activation=activation, pool=pool, norm=norm, **conv).double()
    plain = nn.Conv2d(4, 8, kernel, **conv).double()
    plain.load_state_dict({n: p for n, p in layer.state_dict().items() if n in ("weight", "bias")})
    pools = nn.Identity() if pool is None else nn.MaxPool2d(*pool) if isinstance(pool, tuple) else nn.MaxPool2d(pool)
    rest = copy.deepcopy([nn.Identity() if norm is None else norm, as_module(activation)])
    return layer, nn.Sequential(plain, *rest, pools).double()


def agree(layer: MixConv2d, plain: nn.Module, x: Tensor) -> None:
    """Output under a key, its inverse, and all gradients."""
    key = key_for(x.shape[0], layer.group_size)
    result, expected = layer(x, key), plain(x)
    assert_near(result, group_mix(expected, key))
    assert_near(group_unmix(result, key), expected)
    seed = torch.randn_like(expected)
    ours = torch.autograd.grad(result, list(layer.parameters()), group_mix(seed, key))
    theirs = torch.autograd.grad(expected, list(plain.parameters()), seed)
    assert_near(torch.cat([g.flatten() for g in ours]), torch.cat([g.flatten() for g in theirs]))


@pytest.mark.parametrize("conv", CONVS, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_conv_arguments(conv: dict[str, Any], layout: str) -> None:
    layer, plain = twins("relu", 2, **conv)
    agree(layer, plain, LAYOUTS[layout](torch.randn(6, 4, 11, 10, dtype=torch.float64)))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("pool", [None, 2, (3, 2, 1)])
def test_activations_and_pools(activation: Any, pool: Any) -> None:
    layer, plain = twins(copy.deepcopy(activation), pool, padding=1)
    agree(layer, plain, torch.randn(6, 4, 9, 8, dtype=torch.float64))


@pytest.mark.parametrize(
    "conv", [{}, {"bias": False}, {"groups": 2}, {"padding": 1, "padding_mode": "reflect"}], ids=str
)
@pytest.mark.parametrize(
    "bn", [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}, {"eps": 0.3}], ids=str
)
def test_batch_norm(conv: dict[str, Any], bn: dict[str, Any]) -> None:
    """Batch statistics in training, each seen once; the running ones, folded, in eval."""
    norm = nn.BatchNorm2d(8, **bn)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    layer, plain = twins("relu", 2, norm, **conv)
    for _ in range(3):
        agree(layer, plain, torch.randn(6, 4, 8, 8, dtype=torch.float64) * 2 + 1)
    for name, value in plain[1].state_dict().items():
        assert_near(layer.norm.state_dict()[name].double(), value.double())
    if norm.track_running_stats:
        assert layer.norm.num_batches_tracked == 3
    layer.eval()
    plain.eval()
    agree(layer, plain, torch.randn(6, 4, 8, 8, dtype=torch.float64))
    layer.norm.train()  # the norm's own mode counts, as it does in a plain model
    plain[1].train()
    agree(layer, plain, torch.randn(6, 4, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_in_low_precision(dtype: torch.dtype, training: bool) -> None:
    layer, exact = twins("relu", 2, nn.BatchNorm2d(8))
    exact[1].running_mean.normal_()
    exact[1].running_var.uniform_(0.5, 2)
    layer.norm.load_state_dict(exact[1].state_dict())
    layer, low = layer.to(dtype).train(training), copy.deepcopy(exact).to(dtype).train(training)
    exact.load_state_dict({n: t.double() for n, t in low.state_dict().items()})
    x, key = torch.randn(6, 4, 8, 8).to(dtype), key_for(6, 3)
    expected = group_mix(exact.train(training)(x.double()), key)
    assert_near(layer(x, key), expected, group_mix(low(x), key))


def test_a_small_variance_in_low_precision() -> None:
    """What 16 bits do not hold of it."""
    conv, norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=1e-8)
    norm.running_var.fill_(1e-8)
    norm.weight.data.fill_(1e-4)
    conv, norm = conv.half(), norm.half().eval()
    layer, key, x = MixConv2d.from_conv(conv, group_size=4, norm=norm).eval(), key_for(4, 4), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        expected = group_mix(norm(conv(x.half())).double(), key)
        torch.testing.assert_close(layer(x.half(), key).double(), expected, rtol=0.01, atol=0.01)


def test_other_norms() -> None:
    """Any module may be the norm; those that are no fixed affine map run as they are."""
    for norm in (nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.Identity()):
        layer, plain = twins("relu", 2, norm)
        x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
        agree(layer, plain, x)
        agree(layer.eval(), plain.eval(), x)


class NormAct(nn.BatchNorm2d):
    """A batch norm that does more, as timm's."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(super().forward(x))


class Fusable(nn.BatchNorm2d):
    """A batch norm that does something else in training alone, and says so."""

    fusable = True

    def forward(self, x: Tensor) -> Tensor:
        assert self.training, "to be folded"
        return super().forward(x) * 2


class Renamed(nn.BatchNorm2d):
    """A batch norm."""


@pytest.mark.parametrize("kind", [NormAct, Fusable, Renamed])
def test_subclasses_of_the_norm(kind: type[nn.BatchNorm2d]) -> None:
    """One with a forward of its own is folded only where it says so."""
    layer, plain = twins("relu", 2, kind(8))
    x = torch.randn(6, 4, 8, 8, dtype=torch.float64)
    agree(layer, plain, x)
    if kind is Fusable:
        plain[1].__class__ = nn.BatchNorm2d
    agree(layer.eval(), plain.eval(), x)


def test_hooks_of_the_norm_run_in_eval_too() -> None:
    for register in (nn.Module.register_forward_hook, nn.Module.register_forward_pre_hook):
        layer, plain = twins("relu", 2, nn.BatchNorm2d(8))
        seen: list[bool] = []
        register(layer.norm, lambda norm, *_, seen=seen: seen.append(norm.training))
        for training in (True, False):
            agree(layer.train(training), plain.train(training), torch.randn(6, 4, 8, 8, dtype=torch.float64))
        assert seen == [True, False]


class Swish(nn.ReLU):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.sigmoid()


class Slope(nn.LeakyReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Slopes(nn.PReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class Not(nn.Identity):
    def forward(self, x: Tensor) -> Tensor:
        return -x


class Least(nn.MaxPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(-x)


@pytest.mark.parametrize(
    "fused", [{"activation": kind()} for kind in (Swish, Slope, Slopes, Not)] + [{"pool": Least(2)}, {"pool": Not()}],
    ids=lambda f: " ".join(f"{n} {type(m).__name__}" for n, m in f.items()),
)  # fmt: skip
def test_forwards_that_would_be_lost(fused: dict[str, nn.Module]) -> None:
    ((argument, module),) = fused.items()
    with pytest.raises(TypeError, match=rf"^MixConv2d: {argument} must be .* got {type(module).__name__}"):
        MixConv2d(3, 4, 3, group_size=4, **fused)
    type(module).fusable = True
    MixConv2d(3, 4, 3, group_size=4, **fused)
    del type(module).fusable


def test_group_mix_layer() -> None:
    layer, key, x = GroupMix(3), key_for(6, 3), torch.randn(6, 5)
    assert torch.equal(layer(x, key), group_mix(x, key))
    assert not layer.state_dict()
    unmix = UnmixLinear(5, 2)
    assert_near(unmix(layer(x)), nn.functional.linear(x.double(), unmix.weight.double(), unmix.bias.double()))


@pytest.mark.parametrize("bias", [True, False])
def test_unmix_linear_layer(bias: bool) -> None:
    layer, plain = UnmixLinear(7, 4, bias=bias).double(), nn.Linear(7, 4, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    x, key = torch.randn(6, 2, 7, dtype=torch.float64), key_for(6, 3)
    assert_near(layer(group_mix(x, key), key), plain(x))
    assert isinstance(layer, nn.Linear)


def test_group_unmix_layer() -> None:
    layer, key, y = GroupUnmix(), key_for(6, 3), torch.randn(6, 2, 5)
    assert torch.equal(layer(y, key), group_unmix(y, key))
    assert not layer.state_dict()
    assert repr(layer) == "GroupUnmix()"


def test_state_dicts_fit_both_ways() -> None:
    """Through a file, with weights_only: names, shapes and nothing else."""
    for mixing, plain in (
        (MixConv2d(3, 4, 3, group_size=2), nn.Conv2d(3, 4, 3)),
        (MixConv2d(3, 4, 3, bias=False, group_size=2, max_coeff=0.9), nn.Conv2d(3, 4, 3, bias=False)),
        (UnmixLinear(5, 2), nn.Linear(5, 2)),
    ):
        assert list(mixing.state_dict()) == list(plain.state_dict())
        for source, target in ((mixing, plain), (plain, mixing)):
            file = io.BytesIO()
            torch.save(source.state_dict(), file)
            file.seek(0)
            nn.init.normal_(target.weight)
            target.load_state_dict(torch.load(file, weights_only=True))
            assert torch.equal(source.weight, target.weight)


def test_from_layers_share_parameters() -> None:
    conv = nn.Conv2d(3, 4, 3, stride=2, padding="valid", padding_mode="circular").double().eval()
    mix = MixConv2d.from_conv(conv, group_size=2, max_coeff=0.9)
    assert mix.weight is conv.weight
    assert mix.bias is conv.bias
    assert (mix.training, mix.stride, mix.padding, mix.padding_mode) == (False, (2, 2), "valid", "circular")
    linear = nn.Linear(3, 4, bias=False).eval()
    unmix = UnmixLinear.from_linear(linear)
    assert unmix.weight is linear.weight
    assert unmix.bias is None
    assert not unmix.training


def test_norms_and_slopes_lie_below_their_names() -> None:
    layer = MixConv2d(3, 4, 3, group_size=2, norm=nn.BatchNorm2d(4), activation=nn.PReLU())
    more = [f"norm.{name}" for name in nn.BatchNorm2d(4).state_dict()]
    assert list(layer.state_dict()) == ["weight", "bias", *more, "activation.weight"]


class Own(nn.Linear):
    """Who knows what it does."""


@pytest.mark.parametrize(
    ("error", "layer", "message"),
    [
        (ValueError, weight_norm(nn.Linear(3, 4)), "have a plain parameter as its weight, got a computed one"),
        (ValueError, weight_norm(nn.Linear(3, 4), "bias", dim=None), "have a plain parameter as its bias, got a comp"),
        (TypeError, Own(3, 4), "be an nn.Linear, and no subclass, got Own"),
        (TypeError, UnmixLinear(3, 4), "be an nn.Linear, and no subclass, got UnmixLinear"),
        (TypeError, "fc", "be an nn.Linear, and no subclass, got str"),
    ],
)
def test_from_linear_checks(error: type[Exception], layer: Any, message: str) -> None:
    with pytest.raises(error, match=f"^UnmixLinear.from_linear: linear must {message}"):
        UnmixLinear.from_linear(layer)


def test_from_conv_checks() -> None:
    with pytest.raises(ValueError, match=r"^MixConv2d.from_conv: conv must have a plain parameter as its weight, got"):
        MixConv2d.from_conv(weight_norm(nn.Conv2d(3, 4, 3)), group_size=2)
    with pytest.raises(TypeError, match=r"^MixConv2d.from_conv: conv must be an nn.Conv2d, and no subclass, got L"):
        MixConv2d.from_conv(nn.Linear(3, 4), group_size=2)  # type: ignore[arg-type]


def test_norms_keep_their_mode() -> None:
    """A frozen one stays frozen, and is folded."""
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    layer = MixConv2d.from_conv(conv, group_size=2, norm=norm)
    assert layer.training
    layer(torch.randn(4, 3, 5, 5))
    assert norm.num_batches_tracked == 0


def test_device_and_dtype_arguments() -> None:
    layer = MixConv2d(3, 4, 3, device="meta", dtype=torch.float64, group_size=2)
    assert layer.weight.device.type == "meta"
    assert layer.weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("error", "kwargs", "message"),
    [
        (TypeError, {}, "group_size"),
        (TypeError, {"group_size": "8"}, "^MixConv2d: group_size must be an int"),
        (ValueError, {"group_size": 1}, "^MixConv2d: group_size must be between 2 and 64"),
        (ValueError, {"group_size": 65}, "^MixConv2d: group_size must be between 2 and 64"),
        (TypeError, {"group_size": 8, "norm": "bn"}, "^MixConv2d: norm must be an nn.Module"),
        (
            ValueError,
            {"group_size": 8, "norm": nn.BatchNorm2d(8)},
            "^MixConv2d: norm must be for out_channels = 4, got one for 8",
        ),
        (TypeError, {"group_size": 8, "activation": "gelu"}, "^MixConv2d: activation must be"),
        (TypeError, {"group_size": 8, "activation": nn.GELU()}, "^MixConv2d: activation must be"),
        (ValueError, {"group_size": 8, "activation": nn.PReLU(4)}, "^MixConv2d: activation must"),
        (ValueError, {"group_size": 8, "pool": 0}, "^MixConv2d: pool kernel must"),
    ],
)
def test_constructor_checks(error: type[Exception], kwargs: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        MixConv2d(3, 4, 3, **kwargs)


@pytest.mark.parametrize("layer", [MixConv2d(3, 4, 3, group_size=4), GroupMix(4)], ids=lambda m: type(m).__name__)
def test_batch_must_divide(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"^{type(layer).__name__}: x must have a batch that is a multiple of"):
        layer(torch.randn(6, 3, 5, 5))
    with pytest.raises(ValueError, match=r"key must be for as many rows as x has: 6, got 8 \(2 groups of 4\)"):
        layer(torch.randn(6, 3, 5, 5), key_for(8, 4))


def test_a_lazy_norm_finds_its_size_itself() -> None:
    layer = MixConv2d(3, 4, 3, group_size=4, norm=nn.LazyBatchNorm2d())
    assert layer(torch.randn(4, 3, 5, 5)).shape == (4, 4, 3, 3)


def test_an_image_without_a_batch_is_told_from_a_batch_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"^MixConv2d: x must have 4 dimensions, got shape \[3, 5, 5\]"):
        MixConv2d(3, 4, 3, group_size=4)(torch.randn(3, 5, 5))


@pytest.mark.parametrize("layer", [MixConv2d(3, 4, 3, group_size=4), GroupMix(4)], ids=lambda m: type(m).__name__)
def test_layers_want_tensors(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=f"^{type(layer).__name__}: x must be a Tensor, got list"):
        layer([1, 2])
    with pytest.raises(TypeError, match=f"^{type(layer).__name__}: x must be float32"):
        layer(torch.ones(4, 3, 5, 5, dtype=torch.uint8))


def test_max_coeff_reaches_the_keys() -> None:
    for layer in (MixConv2d(3, 4, 3, group_size=8, max_coeff=0.6), GroupMix(8, max_coeff=0.6)):
        layer(torch.randn(32, 3, 5, 5))
        key = layer.slot.box.key
        assert isinstance(key, MixKey)
        assert key.coeffs.abs().max() <= 0.6
        layer.slot.box.key = None


def test_repr_says_what_is_fused() -> None:
    layer = MixConv2d(3, 4, 3, group_size=8, norm=nn.BatchNorm2d(4), activation="relu", pool=2)
    text = repr(layer)
    assert all(
        part in text for part in ("MixConv2d(", "3, 4", "group_size=8", "BatchNorm2d", "activation=relu", "pool=2")
    )
    assert "group_size=4" in repr(GroupMix(4))


def test_no_warnings() -> None:
    layer = MixConv2d(3, 4, 3, group_size=2, activation=nn.PReLU(), pool=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(torch.randn(4, 3, 8, 8), key_for(4, 2)).sum().backward()
