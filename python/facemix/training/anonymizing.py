"""How a face anonymizer learns (Ren et al., ECCV 2018): to keep what the task needs, against somebody who learns to
tell whose face it was.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .learner import Learner

__all__ = ["Anonymizing", "reversed_gradient"]

#: Weight of the difference between an image and what is sent of it, in standard deviations of pixels.
LIKENESS = 10.0


class Anonymizing(Learner):
    """`Learner` of a network behind an anonymizer.

    The loss is the task's; plus the mean difference between an image and what is sent of it, so that it stays a face;
    plus the cross entropy of the adversary, who tells people by what is sent and by the images themselves. What goes
    back from the adversary to what is sent has its sign reversed (Ganin and Lempitsky 2015): so in one step the
    adversary gets better, and the anonymizer makes it worse.

    Args:
        learner: what `Learner` takes.
        people: int64 [N], who is on each photograph to learn from.
        adversary: images [B, C, H, W] -> scores [B, people]; it trains along, and is thrown away.
        hiding: weight of the adversary in what the anonymizer learns.
    """

    def __init__(self, *learner: Any, people: Tensor, adversary: nn.Module, hiding: float) -> None:
        super().__init__(*learner)
        self.adversary, self.hiding, self._people = adversary, hiding, people

    def configure_optimizers(self) -> Any:
        """One optimizer, of both sides."""
        return self.optimizer([*self.network.parameters(), *self.adversary.parameters()])

    def loss(self, images: Tensor, batch: dict[str, Tensor], step: int) -> Tensor:
        """See the class."""
        sent = self.network.first(images)
        people = self._people[batch["rows"].cpu()].to(sent.device)
        guesses = (self.adversary(reversed_gradient(sent, self.hiding)), self.adversary(images))
        task = self.task.loss(self.network.rest(sent), batch[self.task.name])
        return task + LIKENESS * F.l1_loss(sent, images) + sum(F.cross_entropy(guess, people) for guess in guesses)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradients[0], None


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """`x`, whose gradient is -`weight` times what comes back."""
    reversed_x: Tensor = _Reversed.apply(x, weight)
    return reversed_x
