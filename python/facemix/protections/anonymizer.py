"""The face anonymizer of Ren et al. (ECCV 2018), which the paper compares itself with."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Anonymizer"]


class Anonymizer(nn.Module):
    """Images [B, C, H, W] redrawn by the generator of pix2pix: with its published 64 channels 11.38 million parameters.

    What it hides and keeps is a matter of training, see `facemix.training.anonymizing`.

    Args:
        channels: of images, 1 or 3.
        width: channels of the generator at full size; 64 is the published one.
        mean, std: the network takes (pixel - mean) / std, of pixels from 0 to 1.

    Raises:
        ValueError: if `channels`, `width` or `std` is not positive.
    """

    def __init__(self, channels: int, width: int, mean: float, std: float) -> None:
        super().__init__()
        from facemix.models.pix2pix import Generator  # here, as `facemix.models` imports us

        if not std > 0:
            raise ValueError(f"Anonymizer: std must be positive, got {std}")
        self.generator = Generator(channels, channels, width)
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        # The generator's images are from -1, black, to 1.
        redrawn = self.generator(2 * (x * self.std + self.mean) - 1)
        return ((redrawn + 1) / 2 - self.mean) / self.std
