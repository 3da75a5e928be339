"""What an attacker that has the edge's software makes with it of photographs of its own: rows beneath no noise."""

from __future__ import annotations

import torch
from torch import Tensor

from facemix.data import Labelled

from .edge import Edge
from .request import Request, Secrets
from .scene import send

__all__ = ["Noiseless", "noise"]

NOTHING = Secrets(blinders=torch.zeros(1, 1, 1, 1))


class Noiseless:
    """An edge without its noise. What rows hold is learned from these exactly, and of the noise its strength is enough;
    rows beneath one draw of it teach that draw as well.

    Args:
        edge: to run. Rows are still multiplied by the share that blinding leaves them.

    Attributes:
        group_size: see `Edge`.
    """

    def __init__(self, edge: Edge) -> None:
        self.group_size, self._edge = edge.group_size, edge

    def clean(self, images: Tensor) -> Tensor:
        """See `Edge`."""
        return self._edge.clean(images)

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        """What the edge sends with a generator in the same state, but for the noise. Nothing is reused."""
        return self._edge.send(images, generator, NOTHING)


def noise(edge: Edge, faces: Labelled, rows: Tensor, generator: torch.Generator) -> Tensor:
    """The noise on a request of `edge`, [b, c, h, w]; zeros where there is none.

    Args:
        faces, rows: see `facemix.audit.scene.send`.
        generator: see `Edge`.
    """
    state = generator.get_state()
    sent = send(edge, faces, rows, generator).received
    clear = send(Noiseless(edge), faces, rows, generator.set_state(state)).received
    return sent - clear
