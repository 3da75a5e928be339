"""Cartoon faces drawn by a few formulas: cheap, seeded, any size. For tests, not for claims about
accuracy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .faces import Faces

__all__ = ["ATTRIBUTES", "synthetic_faces"]

ATTRIBUTES = ("glasses", "smiling")

SHARPNESS = 24.0  # slope of the soft edges: about one pixel wide at 48 pixels
NOISE = 0.02


def synthetic_faces(
    people: int = 8, photos: int = 8, size: tuple[int, int] = (32, 32), channels: int = 1, seed: int = 0
) -> Faces:
    """Draw `photos` faces of each of `people` people.

    A person is a fixed face shape, skin, eye distance, mouth and hair line. A photo adds a shift, a light,
    noise, and
    two attributes drawn by a fair coin: glasses and smiling.

    Args:
        people: identities, at least 1.
        photos: images of each person, at least 1; the images of a person are consecutive.
        size: (height, width) in pixels.
        channels: identical up to a tint that belongs to the person.
        seed: the same seed gives the same bits on one version of PyTorch.

    Returns:
        Faces with images [people * photos, channels, *size] and the attributes `ATTRIBUTES`.

    Raises:
        ValueError: if a count is not positive.
    """
    for name, value in (("people", people), ("photos", photos), ("height", size[0]), ("width", size[1])):
        if value < 1:
            raise ValueError(f"synthetic_faces: {name} must be at least 1, got {value}")
    random = torch.Generator().manual_seed(seed)
    total = people * photos
    identity = torch.arange(people).repeat_interleave(photos)

    def of_person(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(people, generator=random))[identity].view(total, 1, 1)

    def of_photo(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(total, generator=random)).view(total, 1, 1)

    # Coordinates from -1 to 1, moved a little in each photo: y, x [total, H, W].
    y, x = torch.meshgrid(torch.linspace(-1, 1, size[0]), torch.linspace(-1, 1, size[1]), indexing="ij")
    y, x = y - of_photo(-0.08, 0.08), x - of_photo(-0.08, 0.08)

    width, height, skin, hair = (
        of_person(0.5, 0.8),
        of_person(0.7, 0.95),
        of_person(0.45, 0.95),
        of_person(0.0, 0.4),
    )
    hair_line, eye_gap, eye_height = of_person(-0.6, -0.25), of_person(0.18, 0.36), of_person(-0.2, 0.05)
    mouth_height, mouth_width = of_person(0.35, 0.55), of_person(0.12, 0.35)
    attributes = {name: torch.randint(0, 2, (total,), generator=random).to(torch.int8) for name in ATTRIBUTES}
    glasses, smiling = (attributes[name].view(total, 1, 1).float() for name in ATTRIBUTES)

    def soft(distance: Tensor) -> Tensor:
        """1 where `distance` is negative, 0 where it is positive."""
        return torch.sigmoid(-SHARPNESS * distance)

    face = soft((x / width) ** 2 + (y / height) ** 2 - 1)
    picture = 0.15 + (skin - 0.15) * face
    picture = picture + (hair - picture) * face * soft(y - hair_line)
    eye_distance = ((x.abs() - eye_gap) ** 2 + (y - eye_height) ** 2).sqrt()
    picture = picture * (1 - 0.9 * soft(eye_distance - 0.08))
    picture = picture * (1 - 0.8 * glasses * soft((eye_distance - 0.17).abs() - 0.03))
    mouth_curve = mouth_height + smiling * (0.12 - 1.5 * x**2)
    picture = picture * (1 - 0.7 * soft((y - mouth_curve).abs() - 0.04) * soft(x.abs() - mouth_width))

    tint = 0.8 + 0.2 * torch.rand(people, channels, 1, 1, generator=random)[identity]
    images = picture.unsqueeze(1) * tint * of_photo(0.85, 1.1).unsqueeze(1)
    images = images + NOISE * torch.randn(images.shape, generator=random)
    return Faces(images.clamp(0, 1), identity, attributes)
