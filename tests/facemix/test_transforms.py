"""Changes of photographs: where a pixel goes, what its value becomes, and what stays to the bit."""

from __future__ import annotations

import math

import pytest
import torch
from facemix.data import change, normalise
from facemix.data.transforms import DRAWS
from facemix.training.settings import Changes
from torch import Tensor

ROTATION, SCALE, DOWN, RIGHT, MIRROR, CONTRAST, BRIGHTNESS = range(DRAWS)
HEIGHT, WIDTH = 40, 60


def draws(**values: float) -> Tensor:
    names = ("rotation", "scale", "down", "right", "mirror", "contrast", "brightness")
    return torch.tensor([[values.get(name, 0.0) for name in names]])


def spot(row: float, column: float) -> Tensor:
    """A soft white spot on black."""
    y = torch.arange(HEIGHT, dtype=torch.float32)[:, None] - row
    x = torch.arange(WIDTH, dtype=torch.float32)[None, :] - column
    return torch.exp(-(x**2 + y**2) / 8).expand(1, 1, HEIGHT, WIDTH).clone()


def centre(image: Tensor) -> tuple[float, float]:
    weight = image[0, 0] / image.sum()
    rows, columns = weight.sum(1), weight.sum(0)
    return float(rows @ torch.arange(HEIGHT).float()), float(columns @ torch.arange(WIDTH).float())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rotation": 1.0}, (29.5, 34.5)),  # a quarter turn clockwise brings what is right of the centre below it
        ({"rotation": -1.0}, (9.5, 24.5)),
        ({"scale": 0.5}, (19.5 - 5 * 1.25, 29.5 + 10 * 1.25)),
        ({"scale": -0.5}, (19.5 - 5 * 0.75, 29.5 + 10 * 0.75)),
        ({"down": 0.5}, (14.5 + 0.1 * HEIGHT, 39.5)),
        ({"right": -1.0}, (14.5, 39.5 - 0.2 * WIDTH)),
        ({"mirror": -0.1}, (14.5, 19.5)),
        ({"mirror": 0.1}, (14.5, 39.5)),
        ({"mirror": -1.0, "rotation": 1.0, "down": 1.0}, (9.5 + 0.2 * HEIGHT, 34.5)),  # mirrored, turned, then moved
    ],
)
def test_where_a_spot_goes(values: dict[str, float], expected: tuple[float, float]) -> None:
    """From 5 above and 10 to the right of the centre."""
    changes = Changes(rotation=math.pi / 2, scale=0.5, shift=0.2, mirror=True)
    assert centre(change(spot(14.5, 39.5), draws(**values), changes)) == pytest.approx(expected, abs=0.05)


def test_each_image_has_its_own_draws() -> None:
    images, random = torch.rand(5, 3, 9, 7), 2 * torch.rand(5, DRAWS) - 1
    changes = Changes(0.8, 0.25, 0.125, True, 0.2, 0.1)
    together = change(images, random, changes)
    assert together.shape == images.shape
    for row in range(5):
        alone = change(images[row : row + 1], random[row : row + 1], changes)
        torch.testing.assert_close(alone[0], together[row])


def test_places_are_not_rounded_in_mixed_precision() -> None:
    """Training in 16 bits resamples photographs where training in 32 does."""
    changes = Changes(rotation=0.3, scale=0.1, shift=0.05, mirror=True)
    image, drawn = spot(10, 20), draws(rotation=0.3, scale=-0.2, down=0.1, right=0.7, mirror=0.2)
    expected = change(image, drawn, changes)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(change(image, drawn, changes), expected)


def test_light() -> None:
    image = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
    contrast = change(image, draws(contrast=0.5, brightness=1.0), Changes(contrast=0.4))
    torch.testing.assert_close(contrast.flatten(), torch.tensor([-0.1, 0.5, 1.1]))
    brightness = change(image, draws(contrast=0.5, brightness=-1.0), Changes(brightness=0.3))
    torch.testing.assert_close(brightness.flatten(), torch.tensor([-0.3, 0.2, 0.7]))


def test_what_is_not_named_stays_to_the_bit() -> None:
    images, random = torch.rand(4, 1, 6, 5), 2 * torch.rand(4, DRAWS) - 1
    assert torch.equal(change(images, random, Changes()), images)
    moved = change(images, random, Changes(shift=0.2))
    random[:, [ROTATION, SCALE, MIRROR, CONTRAST, BRIGHTNESS]] = 1
    assert torch.equal(change(images, random, Changes(shift=0.2)), moved)


def test_normalise() -> None:
    assert normalise(torch.tensor([0.0, 0.5, 1.0])).tolist() == [-2, 0, 2]
