"""The server process: listens, says on which port, watches its files, and drains when told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable

import grpc
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from facemix.wire.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from .access import RateLimit, TokenInterceptor, Tokens
from .background import in_background
from .batching import Batcher
from .health import Health
from .inference import SERVICE, Inference
from .metrics import Metrics
from .reflection import add_reflection
from .repository import Repository
from .servicer import Servicer
from .settings import Settings
from .small_messages import SmallInterceptor
from .tls import credentials

__all__ = ["Server", "serve"]

log = logging.getLogger(__name__)

MAX_CALLS = 4096  # at one time, of all methods; beyond it gRPC refuses before anything is read
LAST_SECONDS = 1.0  # for connections to close where no time is left
WINDOW_BYTES = 64 * 1024  # what gRPC takes in of a message that nobody has asked for


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),  # room for an answer is kept before it is computed
        # Otherwise a second server on the same port would start, and share its requests at random.
        ("grpc.so_reuseport", 0),
        # Without these, gRPC widens the windows of calls that wait, as it sees fit.
        ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
        ("grpc.http2.bdp_probe", 0),
        # Find out that a client has gone, also where it could not say so; and let clients do the same.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.server_handshake_timeout_ms", 20_000),
    ]


class Server:
    """Everything that serves, put together. `start`, then `drain` and `stop`.

    Args:
        settings: what to serve, and how.
        repository: the models.

    Attributes:
        inference: what answers ModelInfer.
        address: "host:port", once it listens.
    """

    address = ""

    def __init__(self, settings: Settings, repository: Repository) -> None:
        self._settings, self._repository = settings, repository
        self._metrics = Metrics()
        self._batcher = Batcher(settings.max_batch, settings.max_delay_ms / 1000, settings.queue_bytes, self._metrics)
        self.inference = Inference(
            repository, self._batcher, RateLimit(settings.rate), self._metrics, settings.max_receiving
        )
        self._servicer = Servicer(repository, self.inference)
        self._health = Health(SERVICE)
        self._drained_by = 0.0  # by the event loop's clock
        self._tokens = None if settings.tokens is None else Tokens(settings.tokens)
        self._server = grpc.aio.server(
            interceptors=[
                *([] if self._tokens is None else [TokenInterceptor(self._tokens, self._metrics)]),
                SmallInterceptor(self._metrics),
            ],
            options=_options(settings),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._server.add_generic_rpc_handlers((self.inference.handler(),))
        add_GRPCInferenceServiceServicer_to_server(self._servicer, self._server)
        add_HealthServicer_to_server(self._health, self._server)
        add_reflection(self._server)

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: if an address is not to be had.
            ValueError: if a certificate is not what it must be.
        """
        settings = self._settings
        host = settings.bracketed_host
        wanted, secure = f"{host}:{settings.port}", credentials(settings)
        try:
            if secure is None:
                port = self._server.add_insecure_port(wanted)
            else:
                port = self._server.add_secure_port(wanted, secure)
        except RuntimeError as error:
            raise OSError(f"serve: {wanted} must be a free address of this machine") from error
        self.address = f"{host}:{port}"
        metrics = None
        if settings.metrics_port is not None:
            metrics = f"{settings.metrics_host}:{self._metrics.serve(settings.metrics_host, settings.metrics_port)}"
        self._announce()
        await self._server.start()
        log.info(
            "serving",
            extra={
                "address": self.address,
                "tls": secure is not None,
                "metrics": metrics,
                "models": self._names(),
            },
        )

    async def watch(self) -> None:
        """Look at the files every few seconds, for ever. Tokens do not wait for a model that takes long to load."""
        await asyncio.gather(self._often(self._look_at_tokens), self._often(self._look_at_models))

    async def _often(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            try:
                await look()
            except Exception as error:  # a disk may fail in any way, and come back
                log.error("reload failed", extra={"error": type(error).__name__})

    async def _look_at_tokens(self) -> None:
        if self._tokens is not None:
            self._tokens.refresh()

    async def _look_at_models(self) -> None:
        if await in_background(self._repository.refresh):
            self._announce()
            log.info("reloaded", extra={"models": self._names()})

    async def drain(self) -> None:
        """Take no more requests, and wait for those under way, `drain_seconds` at most."""
        self.inference.draining = True
        self._health.set(False)
        log.info("draining")
        self._drained_by = asyncio.get_running_loop().time() + self._settings.drain_seconds
        try:
            async with asyncio.timeout_at(self._drained_by):
                await self.inference.drained()
        except TimeoutError:
            log.warning("not all drained")

    async def stop(self) -> None:
        """Close all connections. gRPC closes one as soon as its client has everything that was sent: what has left here
        may be on its way for long.
        """
        self._health.end()
        await self._server.stop(max(LAST_SECONDS, self._drained_by - asyncio.get_running_loop().time()))
        self._batcher.stop()
        self.inference.close()
        log.info("stopped")

    def _announce(self) -> None:
        self._metrics.models(self._repository.models)
        self._health.set(self._servicer.ready)

    def _names(self) -> list[str]:
        return [f"{model.name} {model.version}" for model in self._repository.models]


async def serve(settings: Settings, repository: Repository) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line when it listens.

    Raises:
        OSError, ValueError: see `Server.start` and `Tokens`.
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    server = Server(settings, repository)
    await server.start()
    names = ", ".join(dict.fromkeys(model.name for model in repository.models))
    print(f"facemix cloud: serving {names} on {server.address}", flush=True)
    watching = asyncio.create_task(server.watch()) if settings.reload_seconds else None
    await told.wait()
    if watching is not None:
        watching.cancel()
    await server.drain()
    await server.stop()
