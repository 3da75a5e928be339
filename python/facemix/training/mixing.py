"""From a trained baseline to a model that trains through the mix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import facemix_ops as fo
from facemix.models import build

__all__ = ["mixing_aware", "seeded_keys"]


def mixing_aware(
    baseline: nn.Module,
    builder: str,
    options: Mapping[str, Any],
    group_size: int,
    max_coeff: float | None = None,
) -> nn.Module:
    """Build the model that mixing-aware training starts from: the baseline's weights, a cloud part that
    starts linear.

    Args:
        baseline: trained, of the same builder and options; not changed.
        builder, options: see `models.build`; "activation" is replaced by "prelu", whose slopes start at 1.
        group_size: images in a group.
        max_coeff: bound on the coefficients of the keys, see `facemix_ops.MixKey.sample`.

    Returns:
        The converted model. Its state dict loads into a plain model of the same builder and options.
    """
    model = build(builder, {**options, "activation": "prelu"})
    model.load_state_dict(baseline.state_dict(), strict=False)
    first, last = type(model).pre_blocks[0], type(model).post_blocks[0]  # type: ignore[attr-defined]
    return fo.convert(model, first=first, last=last, group_size=group_size, max_coeff=max_coeff)


@contextlib.contextmanager
def seeded_keys(model: nn.Module) -> Iterator[None]:
    """Within the block, a converted model draws the key of each forward from PyTorch's global generator.

    A key is closed when the next one is drawn (its backward pass is over by then), and the last at the end.
    For training only, where it makes runs reproducible and the images are ours anyway: who knows the seed
    knows the keys.
    """
    key: fo.MixKey | None = None

    def draw(layer: fo.MixConv2d, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal key
        close()
        key = fo.MixKey.sample(
            args[0].shape[0], layer.group_size, max_coeff=layer.max_coeff, generator=torch.default_generator
        )
        return args, {**kwargs, "key": key}

    def close() -> None:
        if key is not None:
            key.close()

    def reuse(layer: fo.UnmixLinear, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "key": key}

    with contextlib.ExitStack() as hooks:
        hooks.callback(close)
        for layer in model.modules():
            if isinstance(layer, fo.MixConv2d | fo.UnmixLinear):
                hook = draw if isinstance(layer, fo.MixConv2d) else reuse
                hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield
