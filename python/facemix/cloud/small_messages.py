"""All methods but ModelInfer: their messages are small, come at once, and are what the method takes.

Some of these methods are open to strangers. gRPC by itself receives the message of every call at once, up to the limit
that ModelInfer needs, and waits for the rest of it for ever.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from .access import OPEN
from .metrics import Metrics
from .receiving import Receiving
from .sending import send

__all__ = ["SmallInterceptor"]

MAX_BYTES = 4096
SLOTS = 8  # gRPC knows one limit for the messages of all methods, so what is received may be as large as for ModelInfer
RECEIVE_SECONDS = 10.0
HURRIED_SECONDS = 1.0  # where other calls wait to be received
MAX_STRANGERS = 1024  # calls of strangers at one time: a quarter of `server.MAX_CALLS`, which are for everybody


class SmallInterceptor(grpc.aio.ServerInterceptor):
    """Has these methods take their messages as `Inference` does, as streams of bytes, so many at a time, and send their
    answers as it does.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        # Strangers do not keep out those who have a token.
        self._strangers, self._others = (Receiving(SLOTS, RECEIVE_SECONDS, HURRIED_SECONDS) for _ in range(2))
        self._strange_calls = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """See grpc.aio."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:  # ModelInfer, which takes bytes
            return handler
        strange = handler_call_details.method in OPEN
        receiving = self._strangers if strange else self._others

        async def only(context: grpc.aio.ServicerContext) -> Any:
            message = await self._take(receiving, handler.request_deserializer, context)
            if message is grpc.aio.EOF:
                await self._refuse(
                    context, grpc.StatusCode.INVALID_ARGUMENT, "message", "a call must bring a message within the limit"
                )
            return message

        async def all_of(context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            while (message := await self._take(receiving, handler.request_deserializer, context)) is not grpc.aio.EOF:
                yield message

        async def one_to_one(_: object, context: grpc.aio.ServicerContext) -> None:
            async with self._place(strange, context):
                await send(context, await handler.unary_unary(await only(context), context))

        async def one_to_many(_: object, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            async with self._place(strange, context):
                async for answer in handler.unary_stream(await only(context), context):
                    yield answer

        async def many_to_many(_: object, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            async for answer in handler.stream_stream(all_of(context), context):
                yield answer

        if not handler.response_streaming:
            behaviour: Callable[..., Any] = one_to_one
        else:
            behaviour = many_to_many if handler.request_streaming else one_to_many
        return grpc.stream_stream_rpc_method_handler(behaviour, None, handler.response_serializer)

    @asynccontextmanager
    async def _place(self, strange: bool, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
        """One of the calls that strangers may hold, who would otherwise hold all that there may be."""
        if strange and self._strange_calls >= MAX_STRANGERS:
            await self._refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "calls",
                f"methods that need no token must have {MAX_STRANGERS} calls at once at most, got more",
            )
        self._strange_calls += strange
        try:
            yield
        finally:
            self._strange_calls -= strange

    async def _take(
        self, receiving: Receiving, parse: Callable[[bytes], Any], context: grpc.aio.ServicerContext
    ) -> Any:
        """The next message, or EOF."""
        try:
            async with receiving.slot() as received:
                data = await context.read()
                received()
        except TimeoutError:
            await self._refuse(
                context,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "slow",
                f"the message must come within {RECEIVE_SECONDS:g} s, or {HURRIED_SECONDS:g} s where others wait",
            )
        if data is grpc.aio.EOF:
            return data
        size = len(data)
        if size > MAX_BYTES:
            del data  # the error that ends the call holds this frame, and it may be a while until it is collected
            await self._refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "message",
                f"the message must have {MAX_BYTES} bytes at most, got {size}",
            )
        try:
            return parse(data)
        except DecodeError:
            await self._refuse(
                context, grpc.StatusCode.INVALID_ARGUMENT, "message", "the message must be one of this method"
            )

    async def _refuse(
        self, context: grpc.aio.ServicerContext, code: grpc.StatusCode, reason: str, text: str
    ) -> NoReturn:
        self._metrics.refusal(reason)
        await context.abort(code, text)
        raise AssertionError("abort raises")
