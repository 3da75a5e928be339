"""The photographs as the page shows them."""

from __future__ import annotations

import io

from PIL import Image

from facemix.data import Labelled, channels_last

__all__ = ["Photographs"]


class Photographs:
    """Faces as PNG, in whatever size they have.

    Args:
        sets: by the name that addresses have.
    """

    def __init__(self, **sets: Labelled) -> None:
        self._pixels = {name: channels_last(faces.images) for name, faces in sets.items()}

    def png(self, name: str, row: int) -> bytes | None:
        """Photograph `row` of a set; None if there is none."""
        if name not in self._pixels or not 0 <= row < len(self._pixels[name]):
            return None
        image = self._pixels[name][row]
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "PNG")
        return file.getvalue()
