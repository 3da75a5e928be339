"""convert: the swap of a model's first convolution and last linear layer for their mixing counterparts."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from .absorbed import STAGES, Intact
from .flow import refuse
from .keys import check_group_size
from .nn import MixConv2d, UnmixLinear
from .pairing import pair
from .rules import bad_type, bad_value, check_max_coeff
from .spec import check_layer, parse_activation, parse_pool
from .tracing import check_forward, check_hooks, follow, followed

M = TypeVar("M", bound=nn.Module)
L = TypeVar("L", bound=nn.Module)


def _layer(model: nn.Module, argument: str, name: str, kind: type[L]) -> L:
    if not isinstance(name, str):
        bad_type("convert", argument, "be the name of a module", type(name).__name__)
    modules = dict(model.named_modules())
    if name not in modules or not name:
        close = [n for n, m in modules.items() if type(m) is kind]
        raise ValueError(
            f"convert: {argument} must be the name of a module, got {name!r}; {kind.__name__} modules here: "
            f"{', '.join(close) or 'none'}"
        )
    try:
        module = check_layer("convert", argument, modules[name], kind)
    except (TypeError, ValueError) as error:
        refuse(name, str(error).removeprefix("convert: "))
    check_hooks(name, module)
    _check_names(name, module, model)
    return module


def _check_names(name: str, module: nn.Module, model: nn.Module) -> None:
    names = [n for n, m in model.named_modules(remove_duplicate=False) if m is module]
    if len(names) > 1:
        refuse(name, f"it is used under several names: {', '.join(names)}")


def convert(
    model: M, *, first: str = "conv1", last: str = "fc", group_size: int = 8, max_coeff: float | None = None
) -> M:
    """Makes ``model`` mix after its first convolution and un-mix in its last layer; in place, and returned.

    The module ``first`` (an nn.Conv2d) becomes a :class:`MixConv2d` that also does the work of the BatchNorm2d, the
    ReLU, LeakyReLU or PReLU, and the MaxPool2d that follow it; these stay in the model and hand their input on. The
    module ``last`` (an nn.Linear) becomes an :class:`UnmixLinear`. Parameters are shared with the modules replaced,
    names do not change: state dicts of the plain and of the converted model fit both. Replace a head before: the model
    refuses to run where one of the two layers, or of what was fused, is another one later on.

    The model's ``forward`` is followed with torch.fx, in training and in eval mode and on no data, to find what comes
    after ``first`` and to make sure that nothing of the input reaches the rest of the network unmixed. What it sets on
    the modules meanwhile is undone. It is followed with its first argument and those that have no default; the model
    then refuses calls that give others, such as a mask. To give them, convert a module that calls this one with them.

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
    if hasattr(model, "_orig_mod"):
        bad_value("convert", "model", "not be compiled yet: convert it, then compile", type(model).__name__)
    check_group_size("convert", group_size)
    check_max_coeff("convert", max_coeff, group_size)
    check_forward(type(model).__name__, model)
    conv = _layer(model, "first", first, nn.Conv2d)
    linear = _layer(model, "last", last, nn.Linear)
    modules = dict(model.named_modules())
    chains = [follow(model, modules, first, last, training) for training in (True, False)]
    chain = chains[0]
    if chain != chains[1]:
        refuse(first, f"what can be fused behind it differs: {chain} in training, {chains[1]} in eval")
    for name in chain:
        _check_names(name, modules[name], model)

    mix = MixConv2d.from_conv(conv, group_size=group_size, max_coeff=max_coeff)
    unmix = UnmixLinear.from_linear(linear)
    held: dict[str, str] = {}
    for name in chain:
        stage, _ = STAGES[type(modules[name])]
        try:
            parse_activation("convert", modules[name]) if stage == 1 else None
            parse_pool("convert", modules[name]) if stage == 2 else None
        except ValueError as error:
            refuse(name, str(error).removeprefix("convert: "))
        held[("norm", "activation", "pool")[stage]] = name
    for attribute, name in held.items():
        module = modules[name]
        _, module.__class__ = STAGES[type(module)]
        # Past nn.Module.__setattr__, which would register it under a second name.
        mix.__dict__[attribute] = module
    arguments = [parameter.name for parameter in followed(model)]
    model.register_forward_pre_hook(Intact(first, last, held, arguments), with_kwargs=True)
    pair(mix, unmix)
    for name, layer in ((first, mix), (last, unmix)):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)
    return model
