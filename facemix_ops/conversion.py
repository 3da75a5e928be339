"""convert: the swap of a model's first convolution and last linear layer for their mixing counterparts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

from torch import Tensor, fx, nn

from .checks import bad_type
from .keys import check_group_size
from .nn import MixConv2d, UnmixLinear, pair
from .spec import parse_activation, parse_pool

M = TypeVar("M", bound=nn.Module)


class Absorbed(nn.Module):
    """A module whose work the MixConv2d before it does. It stays where it was, with its parameters and its name, so
    that state dicts and optimisers see the model they know; in the forward pass it hands its input on."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def absorbed(self, x: Tensor) -> Tensor:
        """What the module did before."""
        return super().forward(x)  # type: ignore[misc]


class AbsorbedBatchNorm2d(Absorbed, nn.BatchNorm2d):
    """See :class:`Absorbed`."""


class AbsorbedReLU(Absorbed, nn.ReLU):
    """See :class:`Absorbed`."""


class AbsorbedLeakyReLU(Absorbed, nn.LeakyReLU):
    """See :class:`Absorbed`."""


class AbsorbedPReLU(Absorbed, nn.PReLU):
    """See :class:`Absorbed`."""


class AbsorbedMaxPool2d(Absorbed, nn.MaxPool2d):
    """See :class:`Absorbed`."""


# What can be fused, by stage; a chain takes each stage once and in this order.
STAGES: dict[type[nn.Module], tuple[int, type[Absorbed]]] = {
    nn.BatchNorm2d: (0, AbsorbedBatchNorm2d),
    nn.ReLU: (1, AbsorbedReLU),
    nn.LeakyReLU: (1, AbsorbedLeakyReLU),
    nn.PReLU: (1, AbsorbedPReLU),
    nn.MaxPool2d: (2, AbsorbedMaxPool2d),
}
# Modules and functions that must not be left to the cloud right behind the mix: they belong before it.
NONLINEAR = (
    "relu", "leaky_relu", "prelu", "rrelu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "threshold", "softsign", "tanhshrink", "hardshrink",
    "softshrink", "logsigmoid", "glu", "max_pool2d", "adaptive_max_pool2d", "fractional_max_pool2d", "batch_norm",
    "group_norm", "instance_norm", "layer_norm", "maxpool2d", "adaptivemaxpool2d", "fractionalmaxpool2d", "lppool2d",
    "batchnorm2d", "syncbatchnorm", "groupnorm", "instancenorm2d", "layernorm", "clamp", "maximum",
)  # fmt: skip


def _refuse(name: str, why: str) -> NoReturn:
    raise ValueError(f"convert: cannot convert {name!r}: {why}")


class _Tracer(fx.Tracer):
    """Looks only into the modules that contain one of the two layers; all others are opaque."""

    def __init__(self, targets: tuple[str, ...]) -> None:
        super().__init__()
        self.targets = targets

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        return not any(t.startswith(f"{qualified_name}.") for t in self.targets)


def _trace(model: nn.Module, targets: tuple[str, ...]) -> fx.Graph:
    try:
        return _Tracer(targets).trace(model)
    except Exception as error:
        raise ValueError(
            f"convert: cannot follow {type(model).__name__}.forward ({type(error).__name__}: {error}). Use "
            "facemix_ops.MixConv2d and facemix_ops.UnmixLinear in the model's own code instead"
        ) from error


def _layer(model: nn.Module, argument: str, name: str, kind: type[nn.Module]) -> nn.Module:
    if not isinstance(name, str):
        bad_type("convert", argument, "be the name of a module", type(name).__name__)
    modules = dict(model.named_modules())
    if name not in modules or not name:
        close = [n for n, m in modules.items() if type(m) is kind]
        raise ValueError(
            f"convert: {argument} must be the name of a module, got {name!r}; {kind.__name__} modules here: "
            f"{', '.join(close) or 'none'}"
        )
    if type(modules[name]) is not kind:
        _refuse(name, f"{argument} must be an nn.{kind.__name__}, got {type(modules[name]).__name__}")
    return modules[name]


def _call(graph: fx.Graph, name: str) -> fx.Node:
    calls = [n for n in graph.nodes if n.op == "call_module" and n.target == name]
    if len(calls) != 1:
        _refuse(name, f"the forward pass must call it once, and calls it {len(calls)} times")
    return calls[0]


def _is_nonlinear(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        name = type(modules[str(node.target)]).__name__
    elif node.op == "call_function":
        name = getattr(node.target, "__name__", "")
    else:
        name = str(node.target) if node.op == "call_method" else ""
    return name.lower().rstrip("_").removesuffix("_with_indices") in NONLINEAR


def _describe(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[str, str]:
    if node.op == "call_module":
        return str(node.target), f"an {type(modules[str(node.target)]).__name__}"
    target = getattr(node.target, "__name__", str(node.target))
    return target, f"a call of {target}() in forward"


def _chain(graph: fx.Graph, node: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """The fusable modules that follow ``node``, one after the other. Refuses what belongs before the mix but cannot
    be fused."""
    stage = -1
    while True:
        if len(node.users) != 1:
            users = ", ".join(n.name for n in node.users) or "nobody"
            _refuse(str(node.target), f"its output must go to one place, and goes to {users}")
        node = next(iter(node.users))
        module = modules[str(node.target)] if node.op == "call_module" else None
        if isinstance(module, nn.Identity):
            continue
        found = STAGES.get(type(module)) if module is not None else None
        if found is None or found[0] <= stage:
            if _is_nonlinear(node, modules):
                name, what = _describe(node, modules)
                have = (
                    "a norm, an activation and a pool, in this order"
                    if found
                    else ", ".join(f"nn.{k.__name__}" for k in STAGES)
                )
                _refuse(name, f"{what} follows the first convolution and must run before the mix; what can be fused "
                              f"there is {have}")  # fmt: skip
            return
        _call(graph, str(node.target))  # once only: it will pass its input through
        stage = found[0]
        yield node


def _check_flow(graph: fx.Graph, mixed: fx.Node, unmixed: fx.Node, last: str) -> None:
    """Nothing of the input may get past the mix, and nothing mixed past the un-mixing layer."""
    output = next(n for n in graph.nodes if n.op == "output")
    shape_only = {"size", "dim", "getattr", "ndimension", "numel"}

    def reaches(start: fx.Node, walls: set[fx.Node]) -> set[fx.Node]:
        seen: set[fx.Node] = set()
        queue = [start]
        while queue:
            node = queue.pop()
            if node in seen or node in walls:
                continue
            seen.add(node)
            name = getattr(node.target, "__name__", str(node.target))
            if node is start or name not in shape_only:
                queue += node.users
        return seen

    if unmixed not in reaches(mixed, set()):
        _refuse(last, "it does not come after the first convolution")
    for source in (n for n in graph.nodes if n.op == "placeholder"):
        if {output, unmixed} & reaches(source, {mixed}):
            _refuse(source.name, "this input reaches the cloud's part, or the output, around the mix")
    if output in reaches(mixed, {unmixed}):
        _refuse(last, "mixed rows reach the output around it")


def convert(
    model: M, *, first: str = "conv1", last: str = "fc", group_size: int = 8, max_coeff: float | None = None
) -> M:
    """Makes ``model`` mix after its first convolution and un-mix in its last layer; in place, and returned.

    The module ``first`` (an nn.Conv2d) becomes a :class:`MixConv2d` that also does the work of the BatchNorm2d, the
    ReLU, LeakyReLU or PReLU, and the MaxPool2d that follow it; these stay in the model and hand their input on. The
    module ``last`` (an nn.Linear) becomes an :class:`UnmixLinear`. Parameters are shared with the modules replaced,
    names do not change: state dicts of the plain and of the converted model fit both.

    The model's ``forward`` is followed with torch.fx, without running it, to find what comes after ``first`` and to
    make sure that nothing of the input reaches the rest of the network unmixed.

    Args:
        model: any module, called as before afterwards; batches must be multiples of ``group_size``.
        first, last: names of modules, dotted where nested.
        group_size: images a group, 2 to 64.
        max_coeff: see :meth:`facemix_ops.MixKey.sample`.

    Raises:
        TypeError, ValueError: naming the module that cannot be converted, and why. The model is then as it was.
    """
    if not isinstance(model, nn.Module):
        bad_type("convert", "model", "be an nn.Module", type(model).__name__)
    check_group_size("convert", group_size)
    conv = _layer(model, "first", first, nn.Conv2d)
    linear = _layer(model, "last", last, nn.Linear)
    modules = dict(model.named_modules())
    graph = _trace(model, (first, last))
    node = _call(graph, first)
    chain = list(_chain(graph, node, modules))
    _check_flow(graph, chain[-1] if chain else node, _call(graph, last), last)

    mix = MixConv2d.from_conv(conv, group_size=group_size, max_coeff=max_coeff)  # type: ignore[arg-type]
    found: dict[int, Any] = {}
    for follower in chain:
        name = str(follower.target)
        stage, absorbed = STAGES[type(modules[name])]
        try:
            parse_activation("convert", modules[name]) if stage == 1 else None
            parse_pool("convert", modules[name]) if stage == 2 else None
        except ValueError as error:
            _refuse(name, str(error).removeprefix("convert: "))
        found[stage] = (modules[name], absorbed)
    for stage, attribute in enumerate(("norm", "activation", "pool")):
        if stage in found:
            module, absorbed = found[stage]
            module.__class__ = absorbed
            # Past nn.Module.__setattr__, which would register it under a second name.
            mix.__dict__[attribute] = module
    unmix = UnmixLinear.from_linear(linear)  # type: ignore[arg-type]
    pair(mix, unmix)
    for name, layer in ((first, mix), (last, unmix)):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return model
