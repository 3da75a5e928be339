"""What flows where in a traced forward pass: nothing of the input around the mix, nothing mixed around the un-mix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from torch import fx
from torch.fx.graph import inplace_methods

# What tells nothing of a tensor's values: methods, and attributes.
SHAPE_ONLY = frozenset(("size", "dim", "ndimension", "numel"))
ATTRIBUTES = frozenset(("shape", "ndim", "dtype", "device", "layout", "is_cuda", "requires_grad"))
# What gives another view of its first argument's memory.
VIEWS = frozenset((
    "getitem", "getattr", "view", "view_as", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim",
    "squeeze", "unsqueeze", "chunk", "split", "unbind", "narrow", "select", "diagonal", "expand", "unfold", "detach",
    "contiguous", "to", "float",
))  # fmt: skip


def refuse(name: str, why: str) -> NoReturn:
    raise ValueError(f"convert: cannot convert {name!r}: {why}")


def check_flow(graph: fx.Graph, mixed: fx.Node, unmixed: fx.Node, mode: str) -> None:
    """Nothing of the input may get past the mix, and nothing mixed past the un-mixing layer."""
    last = str(unmixed.target)
    output = next(n for n in graph.nodes if n.op == "output")
    if unmixed not in _reached(mixed, set()):
        refuse(last, "it does not come after the first convolution")
    for source in (n for n in graph.nodes if n.op == "placeholder"):
        if {output, unmixed} & _reached(source, {mixed}):
            refuse(source.name, f"this input reaches the cloud's part, or the output, around the mix, in {mode} mode")
    if output in _reached(mixed, {unmixed}):
        refuse(last, f"mixed rows reach the output around it, in {mode} mode")


def _reached(start: fx.Node, walls: set[fx.Node]) -> set[fx.Node]:
    """All that values of ``start`` go into, without a way through ``walls``."""
    seen: set[fx.Node] = set()
    queue = [start]
    while queue:
        node = queue.pop()
        if node in seen or node in walls:
            continue
        seen.add(node)
        if node is start or _tells_values(node):
            queue += node.users
            for written in _written(node):  # a wall, perhaps: what reads it then has more than came through it
                queue += written.users
    return seen


def _tells_values(node: fx.Node) -> bool:
    name = _name(node)
    return name not in SHAPE_ONLY and not (name == "getattr" and node.args[1] in ATTRIBUTES)


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """The tensors that a call changes in place, which are no results of it: what it writes to, under all names."""
    name, target = _name(node), node.kwargs.get("out")
    if name.strip("_") in inplace_methods or (name.endswith("_") and not name.endswith("__")):
        target = node.args[0]
    while isinstance(target, fx.Node):
        yield target
        if target.op == "get_attr":  # a node for each time that it is read
            yield from (n for n in node.graph.nodes if n.op == "get_attr" and n.target == target.target)
        target = target.args[0] if _name(target) in VIEWS else None


def _name(node: fx.Node) -> str:
    """Of a function or a method; empty for other nodes."""
    if node.op not in ("call_function", "call_method"):
        return ""
    return str(getattr(node.target, "__name__", node.target))
