"""A network with the mix in its forward pass, for training and for measuring."""

from __future__ import annotations

from torch import Tensor, nn

import facemix_ops as fo
from facemix.edge.halves import Half, first_half, last_half
from facemix.partition import Parts, partition

__all__ = ["MixedNetwork"]

KEYS_DECIDE = 2  # a group size for layers that would draw keys of their own, which they never do here


class MixedNetwork(nn.Module):
    """A plain network cut in three: what the edge runs, mix, what the cloud runs, un-mix, what the edge runs (paper,
    section 3.2). Its parameters are the network's own.

    Args:
        network: plain; trained in place. This begins in its mode.
        pre, post: the cut, see `facemix.partition`.

    Shapes: images [B, C, H, W] and a key for B * rows_per_image rows, or None for no mix -> scores [B, classes], in the
    order of the images.

    Attributes:
        rows_per_image: that are mixed; 1, or the patches of the network.
    """

    def __init__(self, network: nn.Module, pre: int, post: int) -> None:
        super().__init__()
        self.network, self.training = network, network.training
        self.rows_per_image: int = getattr(network, "rows_per_image", 1)
        # Tuples, so that nn.Module does not list the parameters a second time. One of each for either mode: where a
        # network's code asks for its mode, as for a dropout, tracing writes down the answer. By place: False, True.
        self._parts_of_mode = tuple(_traced(network, pre, post, mode) for mode in (False, True))
        self._halves_of_mode: tuple[tuple[Half, Half], ...] = tuple(
            (first_half(parts.edge_first, KEYS_DECIDE), last_half(parts.edge_last)) for parts in self._parts_of_mode
        )

    @property
    def _parts(self) -> Parts:
        """Of the mode that this is in."""
        return self._parts_of_mode[self.training]

    @property
    def _halves(self) -> tuple[Half, Half]:
        """Likewise."""
        return self._halves_of_mode[self.training]

    def forward(self, images: Tensor, key: fo.MixKey | None = None) -> Tensor:
        """See the class."""
        if key is None:
            return self.network(images)
        if self.rows_per_image > 1:
            return self._in_patches(images, key)
        first, last = self._halves
        return last(self._parts.cloud(first(images, key)), key)

    def _in_patches(self, images: Tensor, key: fo.MixKey) -> Tensor:
        """Which patches share a group is drawn: the key's shuffle is as good as any."""
        patches = self.first(images)[key.order]
        outputs = fo.group_unmix(self._parts.cloud(fo.group_mix(patches, key)), key)
        return self._parts.edge_last(outputs[key.order.argsort()])

    def first(self, images: Tensor) -> Tensor:
        """What the edge's first part makes of images, before the mix: [B * rows_per_image, ...]."""
        return self._parts.edge_first(images)

    def rest(self, features: Tensor) -> Tensor:
        """What cloud and edge make of them, without any mix: scores [B, classes]."""
        return self._parts.edge_last(self._parts.cloud(features))

    def train(self, mode: bool = True) -> MixedNetwork:
        """The parts follow: they have the network's layers, but a mode of their own."""
        super().train(mode)
        for part in self._parts:
            part.train(mode)
        return self


def _traced(network: nn.Module, pre: int, post: int, mode: bool) -> Parts:
    """The parts of `network` as it is in training, or in eval mode; it stays in its own."""
    modes = {module: module.training for module in network.modules()}
    try:
        return partition(network.train(mode), pre, post)
    finally:
        for module, own in modes.items():
            module.training = own
