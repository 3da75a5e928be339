"""Bytes that are no message of the protocol."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

__all__ = ["MalformedInterceptor"]


class MalformedInterceptor(grpc.aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT to them. gRPC by itself says UNKNOWN, as if the fault were ours."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """See grpc.aio."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler
        parse, answer = handler.request_deserializer, handler.unary_unary

        async def parse_and_answer(data: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                request = parse(data)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message must be one of this method")
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(parse_and_answer, response_serializer=handler.response_serializer)
