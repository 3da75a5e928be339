"""Cartoon faces with 40 attributes, drawn by a few formulas: seeded, any number, any size.

For tests and trials, not for claims about accuracy on photographs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from .cache import kept
from .canvas import Canvas
from .cartoon import MEASURES, draw_faces
from .labelled import Labelled

__all__ = ["ATTRIBUTES", "synthetic_faces"]

#: The share of people who have an attribute of their own.
OF_PERSON = {
    "arched_eyebrows": 0.3,
    "bald": 0.15,
    "big_lips": 0.3,
    "big_nose": 0.3,
    "bushy_eyebrows": 0.3,
    "chubby": 0.3,
    "cleft_chin": 0.3,
    "double_chin": 0.3,
    "freckles": 0.3,
    "goatee": 0.2,
    "high_cheekbones": 0.4,
    "long_hair": 0.4,
    "mole": 0.3,
    "mustache": 0.25,
    "narrow_eyes": 0.3,
    "oval_face": 0.4,
    "pale_skin": 0.3,
    "pointy_nose": 0.4,
    "receding_hairline": 0.4,
    "sideburns": 0.3,
    "wavy_hair": 0.4,
}

#: Likewise, of which a person has one at most; where none, the hair is brown.
OF_HAIR = {"black_hair": 0.3, "blond_hair": 0.25, "gray_hair": 0.2}

#: The share of photographs that have an attribute, whoever is on them.
OF_PHOTO = {
    "bags_under_eyes": 0.3,
    "bangs": 0.3,
    "collar": 0.4,
    "earrings": 0.3,
    "eyeglasses": 0.3,
    "five_o_clock_shadow": 0.25,
    "hat": 0.2,
    "headband": 0.2,
    "heavy_makeup": 0.3,
    "lipstick": 0.4,
    "looking_aside": 0.3,
    "mouth_open": 0.4,
    "necklace": 0.3,
    "necktie": 0.3,
    "rosy_cheeks": 0.3,
    "smiling": 0.5,
}

NEEDS_HAIR = ("bangs", "long_hair", "receding_hairline", "sideburns", "wavy_hair")

ATTRIBUTES = tuple(sorted({**OF_PERSON, **OF_HAIR, **OF_PHOTO}))

NOISE = 0.02
AT_ONCE = 2**18  # pixels that are drawn together: what the cache holds


def synthetic_faces(
    people: int = 8,
    photos: int = 8,
    size: tuple[int, int] = (32, 32),
    channels: int = 1,
    seed: int = 0,
    *,
    folder: Path | None = None,
) -> Labelled:
    """Draw `photos` faces of each of `people` people.

    A person has measures, shades and the attributes `OF_PERSON` and `OF_HAIR`; a photograph the attributes `OF_PHOTO`,
    a shift, a turn, a distance, a light, a background and noise. Attributes come in random order with the shares given
    there, rounded to whole people or photographs; nobody bald has what needs hair.

    Args:
        people: identities, at least 1.
        photos: images of each person, at least 1; the images of a person are consecutive.
        size: (height, width) in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        seed: the same seed gives the same bits on one version of PyTorch.
        folder: where to keep the images, in a file that is mapped, drawn the first time; default: in memory only.

    Returns:
        Images [people * photos, channels, *size] with identity and the attributes `ATTRIBUTES`.

    Raises:
        ValueError: for a count that is not positive, or other channels.
    """
    for name, value in (("people", people), ("photos", photos), ("height", size[0]), ("width", size[1])):
        if value < 1:
            raise ValueError(f"synthetic_faces: {name} must be at least 1, got {value}")
    if channels not in (1, 3):
        raise ValueError(f"synthetic_faces: channels must be 1 or 3, got {channels}")
    random = torch.Generator().manual_seed(seed)
    identity = torch.arange(people).repeat_interleave(photos)
    measures = {name: _between(*limits, people, random) for name, limits in MEASURES.items()}
    attributes = _attributes(identity, people, random)

    def draw(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with tqdm(total=len(images), desc="drawing", unit="photo", disable=None) as bar:
            for rows in torch.arange(len(images)).split(max(1, AT_ONCE // (size[0] * size[1]))):
                images[rows.numpy()] = _drawn(
                    {name: value[identity[rows]] for name, value in measures.items()},
                    {name: value[rows].float() for name, value in attributes.items()},
                    size,
                    channels,
                    random,
                )
                bar.update(len(rows))
        return images

    shape = len(identity), channels, *size
    if folder is None:
        return Labelled(draw(np.empty(shape, np.uint8)), identity, attributes)
    path = folder / f"synthetic-{_digest(people, photos, size, channels, seed)}.npy"
    return Labelled(kept(path, shape, draw), identity, attributes)


def _digest(*arguments: object) -> str:
    """Of all that decides the images, these formulas among it."""
    total = hashlib.sha256(f"{arguments} {torch.__version__}".encode())
    for name in ("canvas.py", "cartoon.py", "synthetic.py"):
        total.update((Path(__file__).parent / name).read_bytes())
    return total.hexdigest()[:24]


def _between(low: float, high: float, count: int, random: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=random)


def _attributes(identity: Tensor, people: int, random: torch.Generator) -> dict[str, Tensor]:
    """int8 [N] for each of ATTRIBUTES."""

    def place(count: int) -> Tensor:
        return (torch.randperm(count, generator=random) + 0.5) / count  # each from 0 to 1, evenly

    has = {name: (place(people) < share)[identity] for name, share in OF_PERSON.items()}
    hair, low = place(people)[identity], 0.0
    for name, share in OF_HAIR.items():
        has[name] = (low <= hair) & (hair < low + share)
        low += share
    has |= {name: place(len(identity)) < share for name, share in OF_PHOTO.items()}
    has |= {name: has[name] & ~has["bald"] for name in NEEDS_HAIR}
    return {name: has[name].to(torch.int8) for name in ATTRIBUTES}


def _drawn(
    measures: dict[str, Tensor],
    attributes: dict[str, Tensor],
    size: tuple[int, int],
    channels: int,
    random: torch.Generator,
) -> NDArray[np.uint8]:
    """uint8 [n, channels, *size]; measures and attributes are float [n]."""
    count = len(measures["skin"])
    background = _between(0.1, 0.5, count, random).view(-1, 1, 1, 1).expand(-1, channels, -1, -1)
    shift = torch.stack([_between(-0.06, 0.06, count, random) for _ in range(2)], 1)
    angle, zoom = _between(-0.06, 0.06, count, random), _between(0.95, 1.05, count, random)
    canvas = Canvas(size, background, shift, angle, zoom)
    draw_faces(
        canvas,
        {name: value.view(-1, 1, 1) for name, value in measures.items()},
        {name: value.view(-1, 1, 1) for name, value in attributes.items()},
    )
    light = _between(0.85, 1.1, count, random).view(-1, 1, 1, 1)
    pixels = canvas.pixels.mul_(light).add_(NOISE * torch.randn(canvas.pixels.shape, generator=random))
    return pixels.mul_(255).round_().clamp_(0, 255).to(torch.uint8).numpy()
