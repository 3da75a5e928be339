"""Cut a network into the edge's first part, the cloud's middle and the edge's last part (paper, section 3.2,
eq. 1).

parts = partition(resnet18, pre=2)                      # the stem and one residual block on the edge
parts = partition(my_model, pre="conv1", post="fc")     # any model that torch.fx can trace
parts.edge_last(parts.cloud(parts.edge_first(x)))       # equals my_model(x)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import fx, nn

from facemix.models.patches import Patches

__all__ = ["Parts", "partition"]

# What may follow the edge's last layer on the edge. A norm and an activation cost next to nothing there and need not be
# linear there, and a max of mixtures is not the mixture of maxima.
EDGE_TAIL_MODULES = (
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm2d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,  # ReLU6 is one
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.RReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
    nn.MaxPool2d,
    nn.AdaptiveMaxPool2d,
    Patches,
)

# What may stand between two of those. Without one of them behind it, it is left to the cloud.
TRANSPARENT = nn.Identity | nn.Dropout | nn.Dropout2d

# The same as code has them: functions of PyTorch, and methods of tensors; with a _ at the end they work in place.
NAMES = (
    *("celu", "clamp", "clamp_max", "clamp_min", "clip", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish"),
    *("hardtanh", "leaky_relu", "logsigmoid", "mish", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus"),
    *("softshrink", "softsign", "tanh", "tanhshrink", "threshold", "max_pool2d", "adaptive_max_pool2d"),
)
METHODS = {*NAMES, *(f"{name}_" for name in NAMES)}
EDGE_TAIL_FUNCTIONS = {
    getattr(place, name) for place in (F, torch) for name in METHODS if hasattr(place, name)
} | METHODS


class Parts(NamedTuple):
    """The three parts, in order. They share their modules, and the names of their weights, with the whole."""

    edge_first: fx.GraphModule
    cloud: fx.GraphModule
    edge_last: fx.GraphModule


def partition(model: nn.Module, pre: int | str = 1, post: int | str = 1) -> Parts:
    """Cut `model` in three; the three in sequence compute what the whole computes.

    Args:
        model: a network with one input and one output. It is traced with `torch.fx`; every submodule that
            does not contain a named cut is a leaf, so only the code around the cuts must be traceable; but for an
            nn.Sequential that begins with what may go along.
        pre: the edge's first part: how many blocks, for a model that lists them in `pre_blocks` (this
            package's do), or the name of its last layer. Norm, activation, max-pool and the cut into patches
            directly after it go along, and what does nothing between them, or drops out.
        post: the edge's last part: how many of the final layers, for a model that lists them in
            `post_blocks`, or the name of its first layer.

    Raises:
        TypeError: if an argument is of another type.
        ValueError: if a number is out of range, a module is not called exactly once, the cuts are out of
            order, or more than one tensor crosses a cut.
    """
    first = _module_name(model, "pre", pre)
    last = _module_name(model, "post", post)
    graph = _trace(model, (first, last))
    nodes = [node for node in graph.nodes if node.op != "output"]
    start = nodes.index(_end_of_edge(model, _call_of(nodes, "pre", first)))
    stop = nodes.index(_call_of(nodes, "post", last))
    if start + 1 >= stop:
        raise ValueError(f"partition: pre must end at least one layer before post begins, got {first!r} and {last!r}")
    return Parts(
        _subgraph(model, nodes[: start + 1], "EdgeFirst"),
        _subgraph(model, nodes[start + 1 : stop], "Cloud"),
        _subgraph(model, nodes[stop:], "EdgeLast"),
    )


def _module_name(model: nn.Module, argument: str, value: int | str) -> str:
    if not isinstance(model, nn.Module):
        raise TypeError(f"partition: model must be an nn.Module, got {type(model).__name__}")
    if not isinstance(value, int | str):
        raise TypeError(f"partition: {argument} must be a number or the name of a module, got {type(value).__name__}")
    if isinstance(value, str):
        if value not in dict(model.named_modules()) or not value:
            raise ValueError(f"partition: {argument} must name a module of {type(model).__name__}, got {value!r}")
        return value
    blocks: tuple[str, ...] | None = getattr(model, f"{argument}_blocks", None)
    if blocks is None:
        modules = ", ".join(name for name, _ in model.named_children())
        raise ValueError(
            f"partition: {argument} must be the name of a module, because {type(model).__name__} has no "
            f"`{argument}_blocks`, got {value}; its modules are {modules}"
        )
    if not 1 <= value <= len(blocks):
        raise ValueError(f"partition: {argument} must be between 1 and {len(blocks)}, got {value}")
    return blocks[value - 1]


def _trace(model: nn.Module, cuts: tuple[str, ...]) -> fx.Graph:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            holds_cut = any(cut.startswith(module_qualified_name + ".") for cut in cuts)
            return module_qualified_name in cuts or not (holds_cut or _begins_on_edge(m))

    try:
        graph = Tracer().trace(model)
    except Exception as error:  # whatever the model's own code raises on a proxy
        raise ValueError(
            f"partition: model must be traceable by torch.fx, got {type(error).__name__}: {error}"
        ) from error
    inputs = sum(node.op == "placeholder" for node in graph.nodes)
    if inputs != 1:
        raise ValueError(f"partition: model must take one tensor, got {inputs} inputs")
    return graph


def _begins_on_edge(module: nn.Module) -> bool:
    """Whether the first layer of a plain container is one that may go along to the edge: behind the cut it does."""
    if type(module) is not nn.Sequential:
        return False
    layers = (layer for layer in module.modules() if not isinstance(layer, nn.Sequential | TRANSPARENT))
    return isinstance(next(layers, None), EDGE_TAIL_MODULES)


def _call_of(nodes: list[fx.Node], argument: str, name: str) -> fx.Node:
    calls = [node for node in nodes if node.op == "call_module" and node.target == name]
    if len(calls) != 1:
        raise ValueError(
            f"partition: {argument} must name a module that is called once, got {name!r}, called {len(calls)} times"
        )
    return calls[0]


def _end_of_edge(model: nn.Module, node: fx.Node) -> fx.Node:
    """The last of what goes along with `node`, each the only use of the one before it."""
    end = node
    while list(node.users) == [node.next]:
        node = node.next
        layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        called = node.op in ("call_function", "call_method") and node.target in EDGE_TAIL_FUNCTIONS
        if called or isinstance(layer, EDGE_TAIL_MODULES):
            end = node
        elif not isinstance(layer, TRANSPARENT):
            break
    return end


def _subgraph(model: nn.Module, nodes: list[fx.Node], name: str) -> fx.GraphModule:
    """Return `nodes`, which are consecutive, as a module of one input and one output."""
    inside = set(nodes)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    entering = {source for node in nodes for source in node.all_input_nodes if source not in inside}
    leaving = [node for node in nodes if any(user not in inside for user in node.users)]
    enter = len(entering) + sum(node.op == "placeholder" for node in nodes)
    if enter != 1 or len(leaving) != 1:
        raise ValueError(
            f"partition: one tensor must enter each part and one leave it, got {enter} that enter and "
            f"{len(leaving)} that leave {name}"
        )
    for source in entering:
        copies[source] = graph.placeholder("x")
    for node in nodes:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(copies[leaving[0]])
    return fx.GraphModule(model, graph, class_name=name)
