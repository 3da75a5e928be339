"""From training to the page, until somebody stops it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from facemix.data import Labelled
from facemix.demo.halves import write_halves
from facemix.demo.models import train_baseline, train_mixed
from facemix.demo.settings import DemoSettings
from facemix_ops.edge import EdgeModel

from .booth import Booth
from .keeper import Keeper
from .photographs import Photographs
from .server import PageServer, check_port

__all__ = ["run_web"]

POLL_SECONDS = 0.2


def run_web(
    settings: DemoSettings,
    faces: tuple[Labelled, Labelled],
    shown: tuple[Labelled, Labelled],
    out: Path,
    cache: Path,
    fresh: bool = False,
    port: int = 0,
) -> None:
    """Train or take from the cache, start the cloud, and serve the page until SIGTERM or Ctrl-C.

    Args:
        settings: see there.
        faces: (train, test), disjoint images of the same people.
        shown: the same photographs, in the size that the page shows.
        out: folder for the files of clouds and edges.
        cache, fresh: see `run_demo`.
        port: of the page; 0 takes a free one.

    Raises:
        OSError: if the port is taken.
        FacemixError: if the cloud does not start.
    """
    check_port(port)  # training takes minutes
    train, test = faces
    baseline = train_baseline(settings, train, cache, fresh)
    networks = {"mixed": train_mixed(settings, train, baseline, cache, fresh), "baseline": baseline}
    channels, height, width = train.images.shape[1:]
    paths = [
        write_halves(network, name, settings, (channels, height, width), train.images, out)
        for name, network in networks.items()
    ]
    halves = {name: EdgeModel.load(edge) for name, (_, edge) in zip(networks, paths, strict=True)}
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    with (
        Keeper(*(cloud for cloud, _ in paths)) as cloud,
        Booth(halves, cloud.address, train, test) as booth,
        PageServer(port, booth, Photographs(train=shown[0], test=shown[1]), lambda: cloud.state) as server,
    ):
        print(f"the cloud is process {cloud.state['pid']} at {cloud.address}: end it and see what happens", flush=True)
        print(f"facemix demo: the page is at {server.url} (Ctrl-C stops it)", flush=True)
        while not told:  # looking again: a signal in the moment before a wait without end would not end it
            time.sleep(POLL_SECONDS)
