"""One-time blinding: every mixed row goes out beneath a secret row of noise that is used once.

    sent       y = share * q + b,    b = level * z,  z standard normal          q: a mixed row
    un-blind   (f(y) - f(b)) / share, which is f's derivative times q where f, the cloud's part, is linear around b

The edge holds f(b): it was computed beforehand, by somebody with the whole network. What is added to all outputs, such
as biases, cancels. (Slalom, Tramer and Boneh 2019, blinds the layers of a network so, in a finite field.)

Both are rounded to multiples of one step before they are added, so that float32 holds the sum: what is sent is a sum of
real numbers, rounded. The last digits of a sum of two floats as they are tell what was added (Mironov 2012).

One secret row for each that is sent is enough, and best. A mixture of several normal rows is a normal row again, so
that more of them hide no better; and a non-linear cloud is asked for its derivative where its output is known, so that
its error does not grow with 1 / share: docs/hardening.md has figures.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SEED_BYTES", "Blinding", "normal"]

SEED_BYTES = 32
DISTANCE = 0.25  # see `Blinding.of`


@dataclass(frozen=True)
class Blinding:
    """How deep mixed rows lie beneath the noise.

    Attributes:
        share: what a mixed row is multiplied by, above 0 and below 1.
        energy: mean square of the values of mixed rows, positive; what is sent has the same.
    """

    share: float
    energy: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"Blinding: share must be above 0 and below 1, got {self.share}")
        if not 0 < self.energy < math.inf:
            raise ValueError(f"Blinding: energy must be positive, got {self.energy}")

    @property
    def level(self) -> float:
        """Standard deviation of the noise."""
        return math.sqrt((1 - self.share**2) * self.energy)

    @property
    def step(self) -> float:
        """What all values that are sent are multiples of: a power of two. A level is 2^19 to 2^20 steps, and no noise
        exceeds 8.7 levels, which leaves the mixed row nearly half of the 2^24 steps that float32 counts."""
        return math.ldexp(1.0, math.frexp(self.level)[1] - 20)

    @classmethod
    def of(cls, half: Any, images: NDArray[np.uint8], share: float | None = None) -> Blinding:
        """The blinding of an edge half.

        Args:
            half: see `facemix.edge.Client`.
            images: public ones like those to classify, uint8 [N, H, W, C], at least a group.
            share: see above; default: 1 / (4 * sqrt(values of an image)). For somebody who knows a photograph of
                average energy, all others of its group and the key, a request with it then lies 0.25 standard
                deviations from one without it: nobody decides more than 55 % of such cases rightly.

        Raises:
            ValueError: if there are not enough images, or they are black throughout.
        """
        size, shape = half.bundle.group_size, half.bundle.features_shape
        if share is None:
            share = DISTANCE / math.sqrt(getattr(half, "rows_per_image", 1) * math.prod(shape))
        if len(images) < size:
            raise ValueError(f"Blinding: images must be at least {size}, a group, got {len(images)}")
        with half.mix(images[: len(images) // size * size], wire_dtype="float32") as request:
            energy = float(np.square(request.payload, dtype=np.float64).mean())  # of the features: mixing keeps it
        return cls(share, energy)

    def rows(self, seeds: list[bytes], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The secret rows of `seeds`, float32 [N, *shape]; a seed always gives the same row."""
        rows = np.empty((len(seeds), *shape), np.float32)
        for row, seed in zip(rows, seeds, strict=True):
            noise = normal(seed, shape)
            self.scale(noise, self.level)
            row[:] = noise
            noise.fill(0)
        return rows

    def scale(self, values: NDArray[Any], factor: float) -> None:
        """Multiply `values`, floats, in place, and round them to steps."""
        values *= factor / self.step
        np.rint(values, out=values)
        values *= self.step
        values += 0.0  # -0 becomes 0: a sum of two -0 would be -0, and tell that both were


def normal(seed: bytes, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Standard normal values that `seed` decides and that tell nothing of it: SHAKE-256, then Box and Muller 1958."""
    count = math.prod(shape)
    pairs = -(-count // 2)
    bits = np.frombuffer(hashlib.shake_256(seed).digest(16 * pairs), np.dtype("<u8"))
    uniform = ((bits >> 11) + 0.5) * 2.0**-53  # within 0 and 1, and neither
    radius, angle = np.sqrt(-2 * np.log(uniform[:pairs])), 2 * np.pi * uniform[pairs:]
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:count].reshape(shape)
