"""A half and a linear cloud for it. Whatever a test did, no row was in two messages but for one that was
sent again as it was, and no key is left."""

from __future__ import annotations

from collections.abc import Iterator

import facemix.edge.request
import pytest
from edge_halves import DECOYS, MIDDLE, WatchedHalf
from facemix.edge import Client
from fake_cloud import FakeCloud, Running, running


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facemix.edge.request, "FIRST_PAUSE", 0.01)


@pytest.fixture
def half() -> Iterator[WatchedHalf]:
    half = WatchedHalf()
    yield half
    assert half.wiped
    assert len(set(half.copies)) == len(half.copies)


@pytest.fixture
def cloud(half: WatchedHalf) -> Iterator[FakeCloud]:
    cloud = FakeCloud(half.bundle, MIDDLE)
    yield cloud
    assert len(set(cloud.digests)) == len(cloud.digests)


@pytest.fixture
def server(cloud: FakeCloud) -> Iterator[Running]:
    with running(cloud) as server:
        yield server


@pytest.fixture
def client(half: WatchedHalf, server: Running) -> Iterator[Client]:
    with Client(half, server.address, decoys=DECOYS) as client:
        yield client
