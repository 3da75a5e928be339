"""Answers on their way to who asked."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

__all__ = ["send"]


async def send(context: grpc.aio.ServicerContext, answer: Any) -> None:
    """Returns when `answer` has left: not before the caller takes it.

    Of what a method returns gRPC does not say when it has left, and whatever ends with the method, a place or a drain,
    ends too soon.

    Raises:
        asyncio.CancelledError: if the caller has gone.
    """
    try:
        await context.write(answer)
    except grpc.aio.InternalError:  # the connection is gone, and gRPC has not cancelled the call yet
        raise asyncio.CancelledError from None
