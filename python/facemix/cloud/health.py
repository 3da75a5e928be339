"""The standard health service, for load balancers. It is open to strangers, and keeps nothing that they send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthServicer

__all__ = ["Health"]


class Health(HealthServicer):
    """One status for the server and its `service`. (With grpcio-health-checking's own servicer, whoever ends a Watch
    ends what the others hear.)
    """

    def __init__(self, service: str) -> None:
        self._services = ("", service)
        self._status = pb.HealthCheckResponse.NOT_SERVING
        self._changed = asyncio.Event()
        self._ended = False

    def set(self, serving: bool) -> None:
        """Tell everybody."""
        self._status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """Let those go who watch: they would keep their connections open."""
        self._ended = True
        self._changed.set()

    async def Check(self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext) -> pb.HealthCheckResponse:
        """The status now."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service must be empty or one that is served")
        return pb.HealthCheckResponse(status=self._status)

    async def Watch(
        self, request: pb.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.HealthCheckResponse]:
        """The status now and whenever it changes, until `end`; once for a service that is not there, nor will be."""
        if request.service not in self._services:
            yield pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVICE_UNKNOWN)
            return
        told = None
        while not (self._ended and told == self._status):
            changed, status = self._changed, self._status
            if status != told:
                yield pb.HealthCheckResponse(status=status)
                told = status
            await changed.wait()
