import pytest
import torch
import torch.nn.functional as F
from audit_scenes import PixelEdge, textures
from facemix.audit.decoder import Decoder


class Coarse(PixelEdge):
    """Sums and differences within 2 x 2 pixels: all that there is, at half the size, in four channels."""

    def clean(self, images):
        pieces = F.pixel_unshuffle(images.float() / 255, 2)
        turn = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
        return torch.einsum("ij,njhw->nihw", turn, pieces)


class Several(PixelEdge):
    def clean(self, images):
        return super().clean(images).chunk(2, dim=2)[0].repeat(2, 1, 1, 1)


@pytest.mark.parametrize("edge", [PixelEdge(), Coarse()], ids=["pixels", "coarse"])
@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_photographs_come_back_whatever_the_sign_and_the_size_of_the_rows(edge, factor):
    decoder, faces = Decoder(edge, textures(16, 4, 1)), textures(16, 1, 2)
    images = torch.from_numpy(faces.images)
    found = decoder(factor * edge.clean(images))
    assert found.shape == images.shape
    assert torch.corrcoef(torch.stack((found.flatten(), images.float().flatten())))[0, 1] > 0.97


def test_noise_gives_no_photograph():
    edge, faces = PixelEdge(), textures(16, 1, 2)
    noise = torch.randn(16, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    found = Decoder(edge, textures(16, 4, 1))(noise)
    pair = torch.stack((found.flatten(), torch.from_numpy(faces.images).float().flatten()))
    assert abs(torch.corrcoef(pair)[0, 1]) < 0.1


def test_several_sources_of_an_image_are_refused():
    with pytest.raises(ValueError, match="one source for each image, got 2"):
        Decoder(Several(), textures(4, 1, 1))
