"""The picture of a group: all that it should show is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from facemix.pictures import COLUMNS, RIGHT, WRONG
from facemix.training.examples import draw_examples
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image


def drawn(path: Path, size: int = 2, channels: int = 1, changes: dict[str, object] | None = None) -> NDArray[np.uint8]:
    """Pixels of the picture of a group in which the network is right but for the last image."""
    torch.manual_seed(0)
    arguments = {
        "images": torch.randint(256, (size, channels, 14, 11), dtype=torch.uint8),
        "features": torch.randn(size, 3, 5, 4),
        "mixed": torch.randn(size, 3, 5, 4),
        "labels": [f"person {n}" for n in range(size)],
        "predicted": [f"person {n}" for n in range(size - 1)] + ["nobody"],
    }
    draw_examples(path, **{**arguments, **(changes or {})})
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def share(picture: NDArray[np.uint8], colour: str) -> float:
    return float((picture == np.round(255 * np.array(to_rgb(colour)))).all(2).mean())


def test_every_line_is_in_the_picture(tmp_path: Path) -> None:
    plain = drawn(tmp_path / "a.png")
    assert share(plain, RIGHT) > 0.001
    assert share(plain, WRONG) > 0.001
    changes = {
        "images": torch.zeros(2, 1, 14, 11, dtype=torch.uint8),
        "features": torch.zeros(2, 3, 5, 4),
        "mixed": torch.zeros(2, 3, 5, 4),
        "labels": ["person 0", "nobody"],
    }
    for name, value in changes.items():
        other = drawn(tmp_path / "b.png", changes={name: value})
        assert other.shape == plain.shape
        assert (other != plain).any(), name
    assert share(other, WRONG) == 0  # nobody is nobody


@pytest.mark.parametrize("size", [1, COLUMNS + 3])
def test_group_sizes(size: int, tmp_path: Path) -> None:
    picture = drawn(tmp_path / "a.png", size, 3)
    assert picture.shape[1] > 1000
    # The last image is wrong; of a large group it is not shown.
    assert (share(picture, WRONG) > 0.001) == (size == 1)
    assert (share(picture, RIGHT) > 0.001) == (size > 1)


def test_the_same_values_have_the_same_colour_before_and_behind_the_mix(tmp_path: Path) -> None:
    values = torch.ones(2, 1, 5, 4)
    flat = drawn(tmp_path / "a.png", changes={"features": values, "mixed": values})
    half = drawn(tmp_path / "b.png", changes={"features": values, "mixed": values / 2})
    strongest = tuple(flat[flat.shape[0] * 2 // 5, flat.shape[1] // 3])
    assert (half == strongest).all(2).sum() < 0.6 * (flat == strongest).all(2).sum()


def test_long_words_and_zeros(tmp_path: Path) -> None:
    words = ["eyeglasses, smiling, mustache, goatee, hat, bangs, earrings, lipstick, necktie"] * 2
    zeros = torch.zeros(2, 3, 5, 4)
    wordy = drawn(tmp_path / "a.png", changes={"labels": words, "predicted": words, "features": zeros, "mixed": zeros})
    assert wordy.shape[0] > drawn(tmp_path / "b.png").shape[0]  # the words have the room that they need
