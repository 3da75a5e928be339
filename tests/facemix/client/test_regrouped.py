"""What is sent twice in different groups is given away: by linear algebra on received rows, and nothing else. So the
same images are in the same groups.
"""

from __future__ import annotations

from itertools import permutations

import grpc
import numpy as np
import pytest
from edge_halves import GROUP, IMAGE, WatchedHalf, features, images
from facemix.edge import Client
from fake_cloud import FakeCloud, Running, failing
from numpy.typing import NDArray

PICTURES = images(8 * GROUP)
TIMES = 5
Rows = NDArray[np.float64]


def received(cloud: FakeCloud, rows: int = len(PICTURES)) -> list[Rows]:
    """The rows of each request, a message each."""
    payloads = [np.frombuffer(request.raw_input_contents[0], np.float32) for request in cloud.requests]
    return [payload.astype(np.float64).reshape(rows, -1) for payload in payloads]


def groups(products: Rows) -> NDArray[np.int64]:
    """Numbers the rows by where they are not zero."""
    return np.unique(np.abs(products) > 1e-5, axis=0, return_inverse=True)[1].reshape(-1)


def given_away(first: Rows, second: Rows) -> list[Rows]:
    """Features that come out, of single images.

    Rows R = P X and T = Q X of the same images X, with orthogonal P and Q: T R^+ = Q P^T is known exactly. It shows
    which rows share a group. What a group of the one and a group of the other have in common is a block of it; where
    that is one image, the block has rank one, and its right singular vector un-mixes the image.
    """
    products = second @ np.linalg.pinv(first)
    theirs, ours, found = groups(products), groups(products.T), []
    for group in set(theirs):
        for other in set(ours):
            _, strengths, axes = np.linalg.svd(products[theirs == group][:, ours == other])
            if abs(strengths[0] - 1) < 1e-2 and not (strengths[1:] > 1e-2).any():
                found.append(axes[0] @ first[ours == other])
    return found


def recovered(requests: list[Rows]) -> int:
    """How many of PICTURES come out of any two requests: their features at a correlation of .999."""
    found = [image for pair in permutations(requests, 2) for image in given_away(*pair)]
    if not found:
        return 0
    true, mine = (
        rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (features(PICTURES).numpy(), np.array(found))
    )
    return int(np.count_nonzero((np.abs(true @ mine.T) > 0.999).any(1)))


def test_the_same_images_in_other_groups_are_given_away(
    client: Client, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If who shares a group were drawn for each request."""
    monkeypatch.setattr("facemix_ops.edge.model.places", lambda names: np.random.default_rng().permutation(len(names)))
    for _ in range(TIMES):
        client.classify(PICTURES)
    assert recovered(received(server.cloud)) > 0.8 * len(PICTURES)


def test_the_same_images_again_are_in_the_same_groups(server: Running) -> None:
    """In whatever order, and by other clients; each time a group spans the same. What keys with a bound show even so is
    in tests/facemix/audit/test_repeats.py.
    """
    half = WatchedHalf(max_coeff=None)
    for time in range(TIMES):
        with Client(half, server.address, request_groups=8) as client:
            client.classify(PICTURES[np.random.default_rng(time).permutation(len(PICTURES))])
    requests = received(server.cloud)
    assert recovered(requests) == 0
    assert len(np.unique(groups(requests[1] @ np.linalg.pinv(requests[0])))) == len(PICTURES) // GROUP


def test_a_photograph_again_is_among_the_same_decoys(client: Client, server: Running) -> None:
    for _ in range(TIMES):
        client.classify(PICTURES[:1])
    spans = [np.linalg.qr(rows.T)[0] for rows in received(server.cloud, GROUP)]
    assert np.linalg.matrix_rank(np.concatenate(spans, 1), tol=1e-3) == GROUP


def test_a_photograph_among_decoys_is_given_away(client: Client, server: Running) -> None:
    """Nobody has to know the decoys: they are what requests share. R'R r is x (x'r) for a direction r of the request
    that is at right angles to all decoys, and so to all other requests.
    """
    for picture in PICTURES[:24]:
        client.classify(picture[None])
    requests = received(server.cloud, GROUP)
    spans = [np.linalg.qr(rows.T)[0] for rows in requests]
    for number, (rows, picture) in enumerate(zip(requests, PICTURES, strict=False)):
        others = np.linalg.qr(np.concatenate(spans[:number] + spans[number + 1 :], 1))[0]
        direction = np.linalg.svd(spans[number] - others @ (others.T @ spans[number]))[0][:, 0]
        found, true = rows.T @ (rows @ direction), features(picture[None]).numpy()[0]
        assert abs(found @ true) > 0.999 * np.linalg.norm(found) * np.linalg.norm(true)


def test_frames_of_one_scene_hide_nothing(client: Client, server: Running) -> None:
    """With X near 1 x', a row of A X is near x times a row's sum, and these have a mean square of one."""
    noise = np.random.default_rng(3).integers(-3, 4, (GROUP, *IMAGE))
    client.classify((PICTURES[0].clip(3, 252) + noise).astype(np.uint8))
    (rows,) = received(server.cloud, GROUP)
    true = features(PICTURES[:1]).numpy()[0]
    assert np.abs(rows @ true / np.linalg.norm(rows, axis=1) / np.linalg.norm(true)).max() > 0.99


def test_all_attempts_of_a_request_give_away_no_more_than_one(server: Running) -> None:
    half = WatchedHalf(max_coeff=0.7)  # else a row is nearly an image, now and then
    server.cloud.behave = failing(grpc.StatusCode.UNAVAILABLE, times=TIMES - 1)
    with Client(half, server.address, attempts=TIMES) as client:
        client.classify(PICTURES)
    attempts = received(server.cloud)
    assert len(attempts) == TIMES
    assert recovered(attempts) == 0
