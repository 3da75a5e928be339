"""The demo's page on small cartoon faces and two networks that were never trained, with a real cloud process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from facemix.data import Labelled, synthetic_faces
from facemix.demo.halves import write_halves
from facemix.demo.settings import DemoSettings
from facemix.demo.web.booth import Booth
from facemix.demo.web.keeper import Keeper
from facemix.demo.web.photographs import Photographs
from facemix.demo.web.server import PageServer
from facemix.models import build
from facemix.training.stages import Trained

from facemix_ops.edge import EdgeModel

SETTINGS = DemoSettings(size=(32, 32), width=0.125, group_size=4)
PEOPLE, PHOTOS = 6, 8


class Page(NamedTuple):
    """A running page; `faces` are (train, test)."""

    url: str
    cloud: Keeper
    faces: tuple[Labelled, Labelled]


@contextlib.contextmanager
def running_page(folder: Path) -> Iterator[Page]:
    """Serve the page, with its files in `folder`."""
    train, test = synthetic_faces(PEOPLE, PHOTOS, SETTINGS.size).split(0.5, seed=0)
    files = {
        name: write_halves(_network(seed), name, SETTINGS, (1, 32, 32), train.images, folder)
        for seed, name in enumerate(("mixed", "baseline"))
    }
    halves = {name: EdgeModel.load(edge, threads=1) for name, (_, edge) in files.items()}
    with (
        Keeper(*(cloud for cloud, _ in files.values())) as cloud,
        Booth(halves, cloud.address, train, test) as booth,
        PageServer(0, booth, Photographs(train=train, test=test), lambda: cloud.state) as server,
    ):
        yield Page(server.url, cloud, (train, test))


def _network(seed: int) -> Trained:
    options = {"num_classes": PEOPLE, "in_channels": 1, "width": SETTINGS.width, "activation": "prelu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build("resnet18", options)
        with torch.no_grad():
            for _ in range(3):  # batch statistics that are not the trivial ones
                model(torch.randn(16, 1, *SETTINGS.size))
        return Trained(SETTINGS.experiment().model, options, dict(model.state_dict()))
