"""The networks of pix2pix: sizes, shapes, and what a patch sees."""

import pytest
import torch
from facemix.models.pix2pix import Generator, PatchDiscriminator
from torch import nn


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def test_the_generator_has_the_11_38_million_parameters_of_the_papers_anonymizer() -> None:
    with torch.device("meta"):
        assert round(millions(Generator(3, 3)), 3) == 11.378


def test_the_discriminator_has_the_parameters_that_pix2pix_prints() -> None:
    with torch.device("meta"):
        assert round(millions(PatchDiscriminator(3)), 3) == 2.765


@pytest.mark.parametrize(("height", "width"), [(5, 5), (8, 12), (23, 18), (56, 46)])
def test_images_come_out_as_large_as_they_went_in(height: int, width: int) -> None:
    images = torch.randn(2, 3, height, width)
    out = Generator(3, 5, width=4, blocks=1)(images)
    assert out.shape == (2, 5, height, width)
    assert out.abs().max() <= 1


def test_smaller_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 5x5 pixels, got 4x9"):
        Generator(1, 1, width=4, blocks=1)(torch.zeros(1, 1, 4, 9))


def test_the_generator_learns_to_turn_an_image_into_its_negative() -> None:
    torch.manual_seed(0)
    network, images = Generator(1, 1, width=8, blocks=1), torch.rand(8, 1, 14, 10) - 0.5
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(60):
        loss = (network(images) + images).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_verdict_is_about_a_patch(layers: int, side: int) -> None:
    # Without the norms, which see all of an image, and with weights that let everything through.
    network = PatchDiscriminator(1, width=2, layers=layers)
    parts = [part for part in network.patches if not isinstance(part, nn.InstanceNorm2d)]
    image = torch.zeros(1, 1, 160, 160, requires_grad=True)
    for part in parts:
        if isinstance(part, nn.Conv2d):
            nn.init.constant_(part.weight, 1.0)
    verdicts = nn.Sequential(*parts)(image)
    verdicts[0, 0, verdicts.shape[2] // 2, verdicts.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [side, side]
