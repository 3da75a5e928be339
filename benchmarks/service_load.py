"""The load of benchmarks/service.py, in a process of its own.

    python benchmarks/service_load.py ADDRESS BUNDLE CLIENTS SECONDS

CLIENTS connections, each with one request of one group in flight: mixed beforehand, so that the cloud is measured and
not the edge. A request that is refused for want of room waits as long as the cloud says and counts once, from its first
attempt to its answer. Every answer is compared with the first to the same request. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field

import grpc
import numpy as np
from facemix.wire import get_outputs, packed_features
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import RETRY_AFTER

from facemix_ops.edge import EdgeModel

WARM_UP = 1.0  # seconds before the clock starts
TIMEOUT = 60.0
DEFAULT_WAIT = 0.1  # seconds, where the cloud gives no hint
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass
class Counts:
    """What happened after `start`."""

    start: float
    seconds: list[float] = field(default_factory=list)
    rejections: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    wrong: int = 0


async def attempt(rpc: grpc.aio.UnaryUnaryMultiCallable, request: bytes, counts: Counts) -> bytes | None:
    """The answer, after as many rejections as it takes; None after an error."""
    while True:
        try:
            return await rpc(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            counted = time.perf_counter() > counts.start
            if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
                counts.errors[error.code().name] = counts.errors.get(error.code().name, 0) + counted
                return None
            counts.rejections += counted
            hint = dict(error.trailing_metadata() or ()).get(RETRY_AFTER)
            wait = int(hint) / 1e3 if hint else DEFAULT_WAIT
            await asyncio.sleep(wait * random.uniform(1, 1.5))


async def client(address: str, request: bytes, output: tuple[int, int], counts: Counts, end: float) -> None:
    """Ask, wait for the answer, ask again."""
    # A connection of its own, as clients on other machines have.
    options = [("grpc.use_local_subchannel_pool", 1)]
    expected = None
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        rpc = channel.unary_unary(METHOD)
        while (began := time.perf_counter()) < end:
            reply = await attempt(rpc, request, counts)
            done = time.perf_counter()
            if reply is None or not counts.start <= done <= end:
                continue
            counts.seconds.append(done - began)
            actual = get_outputs(pb.ModelInferResponse.FromString(reply), output[0], output[1:])
            if expected is None:
                expected = actual
            counts.wrong += not np.allclose(actual, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def requests(model: EdgeModel, count: int) -> list[bytes]:
    """Mixtures of one group each, no two alike."""
    bundle = model.bundle
    draw, found = np.random.default_rng(0), []
    for _ in range(count):
        with model.mix(draw.integers(0, 256, (bundle.group_size, *bundle.image_shape), dtype=np.uint8)) as mixed:
            found.append(packed_features(bundle.name, str(bundle.version), mixed.payload, "FP32"))
    return found


async def load(address: str, bundle: str, clients: int, seconds: float) -> dict[str, object]:
    """Load for so many seconds, and what came of it."""
    model = EdgeModel.load(bundle, threads=1)
    rows, outputs = model.bundle.group_size, model.bundle.last_weight.shape[1]
    prepared = requests(model, clients)
    counts = Counts(time.perf_counter() + WARM_UP)
    end = counts.start + seconds
    await asyncio.gather(*(client(address, request, (rows, outputs), counts, end) for request in prepared))
    percentiles = np.percentile(counts.seconds, [50, 95, 99]) if counts.seconds else [float("nan")] * 3
    return {
        "images_per_second": len(counts.seconds) * rows / seconds,
        "requests": len(counts.seconds),
        "rejections": counts.rejections,
        "errors": counts.errors,
        "wrong": counts.wrong,
        **{f"p{p}_ms": 1e3 * float(value) for p, value in zip((50, 95, 99), percentiles, strict=True)},
    }


if __name__ == "__main__":
    address, bundle, clients, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    print(json.dumps(asyncio.run(load(address, bundle, clients, seconds))))
