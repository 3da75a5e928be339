"""What the baselines do to images: noise of the scale that they say and that nobody can guess, blurs, generators."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facemix.data import MEAN, STD
from facemix.protections import PROTECTIONS, Anonymizer, Blur, Noise, protection, repeatable
from facemix.protections.gaussian import private_gaussian
from scipy.stats import kstest
from torch import nn

WIDTH = 5  # standard errors that a correct sample stays within, but for one in a million


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sigma", [4, 8])
def test_noise_has_its_deviation_on_the_scale_of_pixels(sigma: float, training: bool) -> None:
    x = torch.zeros(8, 1, 56, 46)
    noise = (Noise(sigma, STD).train(training)(x) - x) * STD * 255
    error = WIDTH / x.numel() ** 0.5
    assert abs(noise.mean().item()) < sigma * error
    assert noise.std().item() == pytest.approx(sigma, rel=error)


@pytest.mark.parametrize("values", [0, 1, 2, 10_001])
def test_private_noise_is_normal(values: int) -> None:
    drawn = private_gaussian(torch.empty(values, dtype=torch.float64))
    assert drawn.shape == (values,)
    assert drawn.isfinite().all()
    if values > 2:
        assert kstest(drawn.numpy(), "norm").pvalue > 1e-6
        half, pairs = values // 2, (values + 1) // 2
        halves = np.corrcoef(drawn[:half], drawn[pairs:])[0, 1]  # of the same pairs of uniform numbers
        assert abs(halves) < WIDTH / half**0.5


def test_an_edge_draws_noise_that_no_seed_decides() -> None:
    noise, x = Noise(8, STD).eval(), torch.zeros(1, 1, 8, 8)
    found = []
    for _ in range(3):
        torch.manual_seed(0)
        found.append(noise(x))
    assert not any(torch.equal(found[0], other) for other in found[1:])
    with repeatable(generator()):
        first = noise(x)
        other: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: other.append(noise(x)))
        thread.start()
        thread.join()
    with repeatable(generator()):
        assert torch.equal(noise(x), first)
    assert not torch.equal(other[0], first)  # another thread's is its own
    seeded = generator()
    with repeatable(seeded):
        noise(x)
    state = seeded.get_state()
    noise(x)
    assert torch.equal(seeded.get_state(), state)  # the block is over


def test_a_blur_leaves_the_means_of_its_blocks_and_no_more() -> None:
    x = torch.rand(2, 3, 32, 24, dtype=torch.float64)
    means = x.view(2, 3, 8, 4, 8, 3).mean((3, 5))
    same_means = x + torch.randn_like(x)
    found = same_means.view(2, 3, 8, 4, 8, 3)
    found -= (found.mean((3, 5)) - means)[:, :, :, None, :, None]  # in place: of `same_means`
    blurred = Blur(8)(x)
    torch.testing.assert_close(Blur(8)(same_means), blurred)
    torch.testing.assert_close(blurred, F.interpolate(means, (32, 24), mode="bilinear"))
    assert blurred.std() < 0.6 * x.std()


def test_a_blur_of_one_colour_is_that_colour_at_any_size() -> None:
    torch.testing.assert_close(Blur(16)(torch.full((1, 1, 56, 46), 0.3)), torch.full((1, 1, 56, 46), 0.3))
    with pytest.raises(ValueError, match="Blur: images must be larger than 16 x 16, got 24 x 16"):
        Blur(16)(torch.zeros(1, 1, 24, 16))


@pytest.mark.parametrize("size", [(24, 24), (27, 22)])
def test_an_anonymizer_sends_images(size: tuple[int, int]) -> None:
    x = 3 * torch.randn(2, 1, *size)
    sent = Anonymizer(1, 4, MEAN, STD)(x) * STD + MEAN
    assert sent.shape == x.shape
    assert sent.min() >= 0
    assert sent.max() <= 1


def test_the_published_anonymizer_has_11_38_million_parameters() -> None:
    with torch.device("meta"):
        network = Anonymizer(3, 64, MEAN, STD)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 11.38


def test_plain_sends_images_as_they_are() -> None:
    x = torch.randn(2, 1, 5, 6)
    assert torch.equal(protection("plain", {})(x), x)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=f"name must be one of {', '.join(PROTECTIONS)}, got 'mix'"):
        protection("mix", {})
    for layer, arguments, message in (
        (Noise, (0, STD), "Noise: sigma must be positive, got 0"),
        (Noise, (8, -1), "Noise: std must be positive, got -1"),
        (Blur, (0,), "Blur: size must be positive, got 0"),
        (Anonymizer, (1, 0, MEAN, STD), "Generator: width must be a positive whole number, got 0"),
        (Anonymizer, (1, 4, MEAN, 0), "Anonymizer: std must be positive, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*arguments)


def test_an_anonymizer_shows_its_generator_pixels_from_minus_one_to_one() -> None:
    anonymizer, seen = Anonymizer(1, 4, MEAN, STD), []
    anonymizer.generator = nn.Identity()
    anonymizer.generator.register_forward_hook(lambda _, inputs, output: seen.append(output))
    x = (torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3) - MEAN) / STD
    torch.testing.assert_close(anonymizer(x), x)
    assert seen[0].flatten().tolist() == [-1, 0, 1]
