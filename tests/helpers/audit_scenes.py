"""Scenes whose outcome is known beforehand: one that every attack must win, and one that none can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from facemix.audit.request import Request, Secrets, Truth
from facemix.audit.scene import Scene
from facemix.data import Labelled
from torch import Tensor

import facemix_ops as fo

SIZE = (24, 20)


class PixelEdge:
    """Mixes the pixels themselves, in groups of `group_size`; 1 sends them as they are."""

    def __init__(self, group_size: int = 4, *, shuffle: bool = True) -> None:
        self.group_size, self.shuffle = group_size, shuffle

    def clean(self, images: Tensor) -> Tensor:
        return images.float() / 255

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        sources, count, size = self.clean(images), len(images), self.group_size
        group = torch.arange(count) // size
        if size == 1:
            return Request(sources, Truth(sources, torch.arange(count), torch.eye(count, dtype=torch.float64), group))
        reuse = reuse or Secrets()
        key = reuse.key or fo.MixKey.sample(count, size, max_coeff=None, generator=generator)
        order = key.order if self.shuffle else torch.arange(count)
        weights, groups = torch.zeros(count, count, dtype=torch.float64), torch.empty(count, dtype=torch.int64)
        weights[order] = torch.block_diag(*key.coeffs)
        groups[order] = group
        received = (weights @ sources.flatten(1).double()).float().view_as(sources)
        return Request(received, Truth(sources, torch.arange(count), weights, groups))


class RectifiedEdge(PixelEdge):
    """Sends what is brighter than the mean: features as after a ReLU."""

    def clean(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - 0.5).clamp(min=0)


class HalvedEdge(PixelEdge):
    """Sends the upper and the lower half of an image as sources of their own."""

    def clean(self, images: Tensor) -> Tensor:
        return super().clean(images).reshape(2 * len(images), 1, -1, images.shape[-1])

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        parts = images.reshape(2 * len(images), 1, -1, images.shape[-1])
        request = PixelEdge(self.group_size).send(parts, generator, reuse)
        image = torch.arange(len(images)).repeat_interleave(2)
        return Request(request.received, replace(request.truth, image=image))


class HidingEdge(PixelEdge):
    """Sends rows beneath noise that is drawn anew each time, `level` times a normal number."""

    def __init__(self, group_size: int, level: float) -> None:
        super().__init__(group_size)
        self.level = level

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        request = super().send(images, generator, reuse)
        blinders = None if reuse is None else reuse.blinders
        if blinders is None:
            blinders = self.level * torch.randn(request.received.shape, generator=generator)
        return Request(request.received + blinders, request.truth)


class OneTimePad(PixelEdge):
    """Sends noise that has nothing to do with the images, and says that it is a mixture of them."""

    def send(self, images: Tensor, generator: torch.Generator, reuse: Secrets | None = None) -> Request:
        request = super().send(images, generator, reuse)
        noise = torch.randn(request.received.shape, generator=generator)
        return Request(noise * request.received.std() + request.received.mean(), request.truth)


def textures(people: int, photos: int, seed: int) -> Labelled:
    """Sparse pixels that differ from person to person and hardly from photograph to photograph: independent sources,
    and people whom anybody tells apart. uint8 [people * photos, 1, *SIZE], with identity and the attribute "odd".
    """
    random = np.random.default_rng(0)  # people are the same in all sets
    faces = 128 + 30 * random.laplace(size=(people, 1, *SIZE))
    noise = np.random.default_rng(seed + 1).normal(0, 4, (people, photos, 1, *SIZE))
    images = (faces[:, None] + noise).clip(0, 255).astype(np.uint8).reshape(-1, 1, *SIZE)
    identity = torch.arange(people).repeat_interleave(photos)
    return Labelled(images, identity, {"odd": (identity % 2).to(torch.int8)})


def scene(edge: PixelEdge, people: int = 16, **more: object) -> Scene:
    """Two photographs of each of `people` are attacked; the attacker has eight, the gallery one of each."""
    return Scene(
        edge, textures(people, 2, 1), textures(people, 8, 2), textures(people, 1, 3), seed=0, effort="quick", **more
    )


def linear(rows: Tensor) -> Tensor:
    """A cloud that is one matrix, the same each time: float32 [n, 64]."""
    return rows.flatten(1) @ torch.randn(rows[0].numel(), 64, generator=torch.Generator().manual_seed(0))
