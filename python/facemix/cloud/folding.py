"""Batch norms folded into the convolutions before them: the same function, with fewer passes over memory."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

__all__ = ["folded"]

Layer = TypeVar("Layer", bound=nn.Module)


def folded(module: nn.Module) -> nn.Module:
    """`module`, in eval mode, with every batch norm folded that directly follows a convolution and nothing else.

    Where `torch.fx` cannot trace it, it is returned as it is. The modules that are not folded are shared with it.
    """
    try:
        traced = fx.symbolic_trace(module)
    except Exception:  # whatever the model's own code raises on a proxy
        return module
    calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    # Weights that the forward pass also takes by themselves must stay what they are.
    read = {str(node.target).rpartition(".")[0] for node in traced.graph.nodes if node.op == "get_attr"}

    def layer(node: fx.Node, kind: type[Layer]) -> Layer | None:
        """The layer of this kind that `node`, and no other, calls."""
        if node.op != "call_module" or calls[node.target] > 1 or node.target in read:
            return None
        found = traced.get_submodule(str(node.target))
        return found if type(found) is kind else None  # a subclass may compute something else

    for node in list(traced.graph.nodes):
        norm = layer(node, nn.BatchNorm2d)
        source = node.all_input_nodes[0] if norm is not None else None
        conv = layer(source, nn.Conv2d) if source is not None and len(source.users) == 1 else None
        # Without running statistics a batch norm depends on the batch, also in eval mode.
        if conv is None or norm is None or source is None or norm.running_mean is None:
            continue
        traced.set_submodule(str(source.target), fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(source)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced
