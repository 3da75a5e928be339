"""A model's forward pass, followed with torch.fx on no data: what comes after the first convolution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter
from typing import Any

from torch import fx, nn
from torch.nn.parameter import is_lazy

from .absorbed import STAGES
from .flow import check_flow, refuse

# What may be the first thing in the cloud's part: layers and calls that are linear in the rows, or begin with a layer
# that is. Anything else right behind the mix (an activation, a norm, a max-pool) belongs before it.
LINEAR = frozenset((
    "conv1d", "conv2d", "conv3d", "convtranspose2d", "conv_transpose2d", "linear", "avgpool2d", "avg_pool2d",
    "adaptiveavgpool2d", "adaptive_avg_pool2d", "upsample", "interpolate", "pad", "zeropad2d", "pixelshuffle",
    "pixel_shuffle", "pixelunshuffle", "pixel_unshuffle", "channelshuffle", "unfold", "fold", "flatten", "unflatten",
    "reshape", "view", "permute", "transpose", "movedim", "squeeze", "unsqueeze", "contiguous", "add", "iadd", "sub",
    "cat", "stack", "chunk", "split", "getitem", "mean", "sum", "size", "getattr", "dim", "to", "float",
))  # fmt: skip
TRANSPARENT = (nn.Identity, nn.Dropout, nn.Dropout2d)


def check_forward(name: str, module: nn.Module) -> None:
    if "forward" in vars(module):
        refuse(name, "its forward was set on the object; only that of its class is followed")


def check_hooks(name: str, module: nn.Module) -> None:
    check_forward(name, module)
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks):
        refuse(name, "it has hooks, which would see mixed rows or be lost; remove them first")


def followed(model: nn.Module) -> list[Parameter]:
    """The arguments of forward that are followed: the first, and those that a call cannot leave out."""
    first, *others = list(inspect.signature(type(model).forward).parameters.values())[1:]
    starred = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [first, *(p for p in others if p.default is Parameter.empty and p.kind not in starred)]


class _Tracer(fx.Tracer):
    """Calls forward with proxies for the arguments that are followed, and with no others: their defaults hold."""

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Callable[..., Any], list[Any]]:
        arguments: list[Any] = [self.root]
        keywords: dict[str, Any] = {}
        for parameter in followed(self.root):
            proxy = self.create_proxy("placeholder", parameter.name, (), {})
            if parameter.kind is Parameter.KEYWORD_ONLY:
                keywords[parameter.name] = proxy
            else:
                arguments.append(proxy)
        return lambda *given: root_fn(*given, **keywords), arguments


class _Outliner(_Tracer):
    """Looks only into the modules that contain one of the two layers, and into containers; all others are opaque."""

    def __init__(self, targets: tuple[str, ...]) -> None:
        super().__init__()
        self.targets = targets

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        inside = any(t.startswith(f"{qualified_name}.") for t in self.targets)
        return not inside and not isinstance(m, nn.Sequential)


@contextmanager
def _rehearsal(model: nn.Module, training: bool) -> Iterator[None]:
    """A block in which forward runs on fx's proxies, in one mode; what that changes in the modules is then undone."""
    before = [(vars(module), vars(module).copy()) for module in model.modules()]
    try:
        for attributes, saved in before:
            attributes.update({n: value.copy() for n, value in saved.items() if type(value) in (list, dict, set)})
            attributes["training"] = training
            buffers = saved.get("_buffers", {})  # copies: a forward may count in one, in place
            attributes["_buffers"] = {n: b if b is None or is_lazy(b) else b.clone() for n, b in buffers.items()}
        yield
    finally:
        for attributes, saved in before:
            attributes.clear()
            attributes.update(saved)


def _trace(model: nn.Module, targets: tuple[str, ...], training: bool) -> fx.Graph:
    """All of the forward pass in one mode; where some module further on cannot be traced, its outline."""
    for tracer in (_Tracer(), _Outliner(targets)):
        try:
            with _rehearsal(model, training):
                return tracer.trace(model)
        except Exception as error:
            failure = error
    raise ValueError(
        f"convert: cannot follow {type(model).__name__}.forward ({type(failure).__name__}: {failure}). Use "
        "facemix_ops.MixConv2d and facemix_ops.UnmixLinear in the model's own code instead"
    ) from failure


def _call(graph: fx.Graph, name: str) -> fx.Node:
    calls = [n for n in graph.nodes if n.op == "call_module" and n.target == name]
    if len(calls) != 1:
        refuse(name, f"the forward pass must call it once, and calls it {len(calls)} times")
    return calls[0]


def _kind(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[str, str]:
    """What a node does, as in LINEAR, and its description in an error message."""
    if node.op == "call_module":
        kind = type(modules[str(node.target)]).__name__
        return kind.lower(), f"the {kind} {str(node.target)!r}"
    name = getattr(node.target, "__name__", str(node.target))
    return name.lower().strip("_"), f"a call of {name}() in forward"


def _is_transparent(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], TRANSPARENT)
    return _kind(node, modules)[0] in ("dropout", "dropout2d")


def _is_users(module: nn.Module) -> bool:
    """Whether a module is a block of the user's own: not PyTorch's, nor a variant of what can be fused."""
    return not type(module).__module__.startswith("torch.nn") and not isinstance(module, tuple(STAGES))


def _scales(node: fx.Node, kind: str) -> bool:
    """Whether a node multiplies by a parameter or a number."""
    factors = [a for a in node.args if isinstance(a, fx.Node) and a.op != "get_attr"]
    return kind in ("mul", "imul", "truediv", "div") and len(factors) == 1 and factors[0] is node.args[0]


def _users(node: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """Who uses a node's output, looking through identities and dropout."""
    for user in node.users:
        if _is_transparent(user, modules):
            yield from _users(user, modules)
        else:
            yield user


def _chain(graph: fx.Graph, node: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node]:
    """The fusable modules that follow ``node``, one after the other.

    Refuses what follows them and belongs before the mix, but cannot be fused.
    """
    stage, activated = -1, False
    while not (stage == 2 and activated):  # a stem that has both lacks nothing
        users = list(_users(node, modules))
        only = users[0] if len(users) == 1 else None
        found = None
        if only is not None and only.op == "call_module":
            found = STAGES.get(type(modules[str(only.target)]))
        if only is None or found is None or found[0] <= stage:
            for user in users:
                kind, what = _kind(user, modules)
                # Behind an activation, a block of the user's own that could not be traced is the cloud's first.
                block = stage > 0 and user.op == "call_module" and _is_users(modules[str(user.target)])
                if user.op != "output" and kind not in LINEAR and not block and not _scales(user, kind):
                    refuse(
                        str(user.target) if user.op == "call_module" else str(node.target),
                        f"{what} follows and belongs before the mix, where only a BatchNorm2d, then a ReLU, LeakyReLU "
                        "or PReLU, then a MaxPool2d can be fused, each a module, called once and on nothing else",
                    )
            return
        between = next(iter(node.users))
        while between is not only:
            if _kind(between, modules)[0] != "identity":
                refuse(str(between.target), f"it stands between {node.target!r} and {only.target!r}, to be fused")
            between = next(iter(between.users))
        _call(graph, str(only.target))  # once only: it will pass its input through
        check_hooks(str(only.target), modules[str(only.target)])
        stage, node = found[0], only
        activated = activated or stage == 1
        yield node


def follow(model: nn.Module, modules: dict[str, nn.Module], first: str, last: str, training: bool) -> list[str]:
    """The names of the modules to be fused behind ``first``. Refuses a forward pass that the two layers do not fit."""
    graph = _trace(model, (first, last), training)
    node = _call(graph, first)
    chain = list(_chain(graph, node, modules))
    check_flow(graph, chain[-1] if chain else node, _call(graph, last), "training" if training else "eval")
    return [str(follower.target) for follower in chain]
