"""ModelInfer: from the bytes of a request to the bytes of its answer. Tensor values are never logged."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import grpc
from google.protobuf.message import DecodeError

from facemix.wire import WireError, get_features, parse, put_outputs
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import COMPUTE_NS, NETWORK, OUTPUTS, RETRY_AFTER

from .access import RateLimit, client_of
from .batching import Batcher, Computed, Rows
from .logs import Seldom
from .metrics import Metrics
from .model import CloudModel
from .receiving import Receiving
from .refusal import Refusal
from .repository import Repository
from .sending import send

__all__ = ["Inference"]

log = logging.getLogger(__name__)
T = TypeVar("T")

SERVICE = "inference.GRPCInferenceService"
MAX_ID = 256
SMALL_BYTES = 256 * 1024  # packed and unpacked on the spot: a hop to another thread would cost more
COPIES = 2  # of an answer: as float32 and packed, then packed and gRPC's own
RECEIVE_SECONDS = 60.0  # a message takes longer only if its sender holds it back
HURRIED_SECONDS = 5.0  # where other calls wait to be received


class Inference:
    """Answers ModelInfer.

    The method is one message there and one back. It is registered as one of streams, which on the wire is the same: so
    we choose when to receive the message, and give up on one that does not come, and we know when the answer was sent,
    and that it counts until then; and as one of bytes, so that large messages are unpacked in a thread and other calls
    go on meanwhile.

    Args:
        max_receiving: messages received and unpacked at one time; other calls wait, with no more than a flow-control
            window of theirs in memory.

    Attributes:
        draining: no more calls are taken.
    """

    def __init__(
        self, repository: Repository, batcher: Batcher, rates: RateLimit, metrics: Metrics, max_receiving: int
    ) -> None:
        self._repository, self._batcher, self._rates, self._metrics = repository, batcher, rates, metrics
        self._receiving = Receiving(max_receiving, RECEIVE_SECONDS, HURRIED_SECONDS)
        self._helpers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="facemix-messages")
        self._refused = Seldom(log)
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def drained(self) -> None:
        """Wait until no call is under way."""
        await self._idle.wait()

    def close(self) -> None:
        """Let the threads end."""
        self._helpers.shutdown(wait=False)

    def handler(self) -> grpc.GenericRpcHandler:
        """What to add to a server, before the generated handlers, which have a ModelInfer too."""
        method = grpc.stream_stream_rpc_method_handler(self._call)
        return grpc.method_handlers_generic_handler(SERVICE, {"ModelInfer": method})

    async def _call(self, messages: object, context: grpc.aio.ServicerContext) -> None:
        start = time.perf_counter()
        self._calls += 1
        self._idle.clear()
        code = grpc.StatusCode.CANCELLED  # unless it comes to another end
        try:
            try:
                await self._answer(context)
                code = grpc.StatusCode.OK
                return
            except Exception as error:
                # The text of an unexpected error may quote values, so only its type goes out and into the log.
                refusal, kind = _refusal(error), type(error).__name__
            # That error is gone before the call is aborted: its frames hold the message, and gRPC would keep them, in a
            # cycle, until Python happens to look for those.
            code = refusal.code
            self._metrics.refusal(refusal.reason)
            self._refused.warning("refused", refusal.reason, code=code.name, error=kind)
            hint = () if refusal.retry_ms is None else ((RETRY_AFTER, str(refusal.retry_ms)),)
            await context.abort(code, str(refusal), hint)
            raise AssertionError("abort raises")
        finally:
            self._metrics.request(code.name, time.perf_counter() - start)
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _answer(self, context: grpc.aio.ServicerContext) -> None:
        if self.draining:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "draining", "the server is stopping")
        remaining = context.time_remaining()
        deadline = time.monotonic() + remaining if remaining is not None else math.inf
        with self._batcher.arriving():
            self._batcher.check_room(1)
            model, features, datatype, identity = await self._take(context)
            kept = COPIES * len(features) * math.prod(model.output_shape) * features.itemsize
            self._batcher.check_room(features.nbytes + kept)  # what is refused for that does not count as sent
            self._rates.take(client_of(context), len(features))
            outcome = self._batcher.submit(model, features, deadline)
        del features
        with self._batcher.keeping(kept):
            computed = await outcome
            answer = await self._aside(computed.outputs.nbytes, _pack, model, identity, computed, datatype)
            del computed, outcome
            self._metrics.sent(len(answer))
            await send(context, answer)

    async def _take(self, context: grpc.aio.ServicerContext) -> tuple[CloudModel, Rows, str, str]:
        """Receive a message and unpack it."""
        try:
            async with self._receiving.slot() as received:
                data = await context.read()
                received()
                if data is grpc.aio.EOF:
                    raise Refusal(
                        grpc.StatusCode.INVALID_ARGUMENT, "message", "a call must bring a message within the limit"
                    )
                self._metrics.received(len(data))
                return await self._aside(len(data), self._unpack, data)
        except TimeoutError:
            raise Refusal(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "slow",
                f"the message must come within {RECEIVE_SECONDS:g} s, or {HURRIED_SECONDS:g} s where others wait",
            ) from None

    async def _aside(self, size: int, function: Callable[..., T], *arguments: object) -> T:
        if size <= SMALL_BYTES:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._helpers, function, *arguments)

    def _unpack(self, data: bytes) -> tuple[CloudModel, Rows, str, str]:
        try:
            request = parse(pb.ModelInferRequest, data)
        except DecodeError:
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, "message", "the message must be a ModelInferRequest"
            ) from None
        model = self._repository.find(request.model_name, request.model_version)
        if len(request.id) > MAX_ID:  # it is kept while the request waits
            raise WireError(f"id must have {MAX_ID} characters at most, got {len(request.id)}")
        for wanted in request.outputs:
            if wanted.name != OUTPUTS:
                raise WireError(f"outputs must be {OUTPUTS!r}, got {wanted.name[:40]!r}")
        features, datatype = get_features(request, model.input_shape)
        return model, features, datatype, request.id


def _pack(model: CloudModel, identity: str, computed: Computed, datatype: str) -> bytes:
    response = pb.ModelInferResponse(model_name=model.name, model_version=str(model.version), id=identity)
    response.parameters[COMPUTE_NS].int64_param = computed.compute_ns
    response.parameters[NETWORK].string_param = model.network
    put_outputs(response, computed.outputs, datatype)
    return response.SerializeToString()


def _refusal(error: Exception) -> Refusal:
    """One that has no traceback."""
    if isinstance(error, Refusal):
        return Refusal(error.code, error.reason, str(error), error.retry_ms)
    if isinstance(error, WireError):
        return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "tensors", str(error))
    return Refusal(grpc.StatusCode.INTERNAL, "failure", f"inference failed: {type(error).__name__}")
