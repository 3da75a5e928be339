"""Who shares a group with whom. It follows from the images and is not drawn, so that whoever asks for the same ones
again sends them in the same groups, under another key. Of groups that are drawn each time the spans meet in single
images; of the same group further keys tell nothing where they are uniformly random (docs/security.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["decoys_for", "digest", "places"]


def digest(image: NDArray[np.uint8]) -> bytes:
    """SHA-256 of an image's bytes: tells it from others, and says nothing of it to somebody who does not have it."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()


def places(digests: Sequence[bytes], parts: int = 1) -> NDArray[np.int64]:
    """Where each image goes, int64 [N * parts]; those in neighbouring places share a group.

    Args:
        digests: of N images.
        parts: that an image is cut into, which go to places of their own, one after the other.
    """
    names = digests
    if parts > 1:
        names = [hashlib.sha256(name + part.to_bytes(4)).digest() for name in digests for part in range(parts)]
    order = sorted(range(len(names)), key=names.__getitem__)
    result = np.empty(len(names), np.int64)
    result[order] = np.arange(len(names))
    return result


def decoys_for(digests: Sequence[bytes], decoys: Sequence[bytes], count: int) -> list[int]:
    """Rows of the `count` decoys that go with images, different ones and none of these; fewer where there are not as
    many. The same for the same images, whatever their order.

    Args:
        digests: of the images.
        decoys: digests of the decoys.
    """
    taken = set(digests)
    usable = {name: row for row, name in enumerate(decoys) if name not in taken}
    seed = hashlib.sha256(b"".join(sorted(digests))).digest()
    ranked = sorted(usable, key=lambda name: hashlib.sha256(seed + name).digest())
    return [usable[name] for name in ranked[:count]]
