"""What an attacker gets when an edge uses a secret twice: what-ifs, which no edge of the package does by itself."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import facemix_ops as fo

from .edge import MixingEdge
from .grouping import groups_of_images
from .matching import correlation, likeness
from .outcome import Variant
from .recovery import recover
from .request import Request, Secrets
from .scene import Scene

__all__ = ["reused"]

GROUPS = 2  # of rows, in a request
REQUESTS = {"quick": 4, "full": 16}


def reused(scene: Scene) -> Iterator[Variant]:
    """What comes out of requests with a secret in common, of an edge that mixes. The floor is one of them alone."""
    numbers, images = range(REQUESTS[scene.effort]), groups_of_images(scene, GROUPS)
    alone = scene.request(0, images)
    floor = _likeness(scene, alone, alone.received)
    bound = getattr(scene.edge, "max_coeff", None)
    key = fo.MixKey.sample(
        len(alone.received), scene.edge.group_size, max_coeff=bound, generator=scene.generator("a repeated key")
    )
    requests = [scene.request(number, images, Secrets(key=key)) for number in numbers]
    # One mixing matrix for all: further requests are further samples, as further channels are.
    pool = torch.cat([request.received for request in requests], 1)
    yield Variant(f"if a key were used for {len(numbers)} requests", _likeness(scene, requests[0], pool), floor)
    if isinstance(scene.edge, MixingEdge) and scene.edge.blinding is not None:
        groups = len(alone.received) // scene.edge.group_size
        secrets = Secrets(blinders=scene.edge.blinders(groups, scene.generator("repeated blinders")))
        requests = [scene.request(number, images, secrets) for number in numbers]
        bare = _without_blinders([request.received for request in requests])
        name = f"if blinders were used for {len(numbers)} requests"
        yield Variant(name, _likeness(scene, requests[0], bare), floor)


def _likeness(scene: Scene, request: Request, pool: Tensor) -> float:
    """How like each source of a request its match is, of what is recovered from `pool`: the request's rows, in their
    order, and perhaps further channels after them.
    """
    found = recover(scene, pool, "reused").rows[:, : request.received.shape[1]]
    return float(likeness(request.truth.sources, found).mean())


def _without_blinders(received: list[Tensor]) -> Tensor:
    """The first request's rows less what they have in common with those of the others, [b, c, h, w]: each row with the
    one of every other request that is most like it, since the same blinder is in both.
    """
    first = received[0]
    total = first.clone()
    for other in received[1:]:
        _, same = linear_sum_assignment(correlation(first, other).numpy(), maximize=True)
        total += other[torch.from_numpy(same)]
    return first - total / len(received)
