"""A generator that turns a received row into the photographs that it mixes, trained against a discriminator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from facemix.models.pix2pix import Generator, PatchDiscriminator

from .attack import Progress

__all__ = ["Size", "Translator", "chamfer"]

BETAS = (0.5, 0.999)  # of Adam, as in pix2pix
LIKENESS = 100.0  # how much likeness weighs against looking real, as in pix2pix
BATCH = 16  # rows


@dataclass(frozen=True)
class Size:
    """How large the networks are, and how long they are trained.

    Attributes:
        width, blocks: see `Generator`.
        layers: see `PatchDiscriminator`.
        steps: of training.
        rate: of learning.
    """

    width: int
    blocks: int
    layers: int
    steps: int
    rate: float


#: Where there is a GPU; and what two cores train in the time of a coffee. The paper says "Pix2Pix", and no size.
FULL, SMALL = Size(64, 9, 3, 4000, 2e-4), Size(16, 3, 2, 160, 1e-3)


def chamfer(images: Tensor, found: Tensor) -> Tensor:
    """The Chamfer distance of two sets of images, in L1 (section 4 of the paper): of each image to the nearest one of
    the other set, summed over both. Here a mean over pixels and images in place of sums.

    Args:
        images, found: float [b, S, C, H, W].

    Returns:
        A scalar.
    """
    distance = (images[:, :, None] - found[:, None]).abs().flatten(3).mean(3)
    return distance.amin(2).mean() + distance.amin(1).mean()


class Translator:
    """pix2pix (Isola et al. 2017) with sets of images for results.

    Args:
        row: shape of a row, [c, h, w].
        photographs: shape of what it mixes, [S, C, H, W].
        size: see there.
        device: where it trains.
        seed: of the first weights, and of what the discriminator sees.
    """

    def __init__(self, row: torch.Size, photographs: torch.Size, size: Size, device: torch.device, seed: int) -> None:
        self._photographs, self._size, self._device = photographs, size, device
        count, channels = photographs[:2]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._generator = Generator(row[0], count * channels, size.width, size.blocks).to(device)
            self._critic = PatchDiscriminator(row[0] + channels, size.width, size.layers).to(device)
        self._draws = torch.Generator().manual_seed(seed)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]], progress: Progress) -> None:
        """Train on `size.steps` of `batches`: rows float32 [b, c, h, w], and photographs [b, S, C, H, W], -1 to 1."""
        size = self._size
        generator = torch.optim.Adam(self._generator.parameters(), size.rate, BETAS)
        critic = torch.optim.Adam(self._critic.parameters(), size.rate, BETAS)
        for step, (rows, photographs) in zip(range(size.steps), batches, strict=False):
            seen, images = self._grown(rows.to(self._device)), photographs.to(self._device)
            found = self._found(seen)
            # The discriminator sees one image of each set: all of them would cost S times as much and tell no more.
            real, fake = (self._one_of(images), self._one_of(found))
            _step(critic, (_far(self._judged(seen, real), 1) + _far(self._judged(seen, fake.detach()), 0)) / 2)
            _step(generator, _far(self._judged(seen, fake), 1) + LIKENESS * chamfer(images, found))
            progress((step + 1) / size.steps)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows float32 [b, c, h, w] -> photographs float32 [b, S, C, H, W], -1 to 1, on the CPU."""
        with torch.inference_mode():
            parts = [self._found(self._grown(part.to(self._device))).cpu() for part in rows.split(BATCH)]
        return torch.cat(parts)

    def _grown(self, rows: Tensor) -> Tensor:
        return F.interpolate(rows, tuple(self._photographs[-2:]), mode="bilinear")

    def _found(self, seen: Tensor) -> Tensor:
        return self._generator(seen).view(len(seen), *self._photographs)

    def _one_of(self, sets: Tensor) -> Tensor:
        which = torch.randint(sets.shape[1], (len(sets),), generator=self._draws).to(sets.device)
        return sets[torch.arange(len(sets), device=sets.device), which]

    def _judged(self, seen: Tensor, image: Tensor) -> Tensor:
        return self._critic(torch.cat((seen, image), 1))


def _far(verdict: Tensor, wanted: float) -> Tensor:
    """The loss of least-squares GANs (Mao et al. 2017)."""
    return (verdict - wanted).square().mean()


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
