"""Who may call, and how much: bearer tokens, and a rate for each client. Tokens are neither kept nor logged."""

from __future__ import annotations

import hashlib
import hmac
import logging
import stat
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

import grpc

from .logs import Seldom
from .metrics import Metrics
from .refusal import Refusal

__all__ = ["RateLimit", "TokenInterceptor", "Tokens", "client_of"]

log = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int, int]

#: Methods that need no token: a load balancer has none.
OPEN = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/inference.GRPCInferenceService/ServerLive")

BURST_SECONDS = 10  # a client that was quiet may send this many seconds' rows at once
MAX_CLIENTS = 10_000  # whose balance is kept

_name: ContextVar[str] = ContextVar("facemix_client")


class Tokens:
    """The clients in a file, by the SHA-256 of their tokens.

    Args:
        path: lines `NAME TOKEN`; empty lines and those that begin with # are skipped.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not such a file, or others than its owner and group may read it. The text quotes no token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: Stamp | None = self._mark()  # None where the last look found no file that can be read
        self._clients, fault = _read(path)
        if fault or not self._clients:
            raise ValueError(f"serve: --tokens must {fault or f'name a client, got none in {path}'}")

    def client(self, token: str) -> str | None:
        """The name of the client with `token`; it takes as long for any token of the same length."""
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for name, known in self._clients:
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def refresh(self) -> None:
        """Read the file again if it was changed. Whoever it does not list is out, whatever else is wrong with it; who
        is new comes in only if nothing is. Where it cannot be read twice in a row, everybody is out: once, it may be
        being replaced.
        """
        stamp: Stamp | None
        try:
            stamp = self._mark()
            if stamp == self._stamp:
                return
            listed, fault = _read(self._path)
        except (OSError, ValueError) as error:
            if self._stamp is None and not self._clients:
                return  # that was logged
            listed = [] if self._stamp is None else self._clients
            stamp, fault = None, str(error)
        self._stamp = stamp
        self._clients = [client for client in self._clients if client in listed] if fault else listed
        if fault:
            log.warning("tokens refused", extra={"error": fault, "clients": len(self._clients)})
        else:
            log.info("tokens read", extra={"clients": len(self._clients)})

    def _mark(self) -> Stamp:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Turns away calls without a valid token before their message is read."""

    def __init__(self, tokens: Tokens, metrics: Metrics) -> None:
        self._tokens, self._metrics = tokens, metrics
        self._refused = Seldom(log)
        self._denial = grpc.stream_unary_rpc_method_handler(self._deny)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        """See grpc.aio."""
        if handler_call_details.method not in OPEN:
            name = self._client(handler_call_details)
            if name is None:
                return self._denial
            _name.set(name)  # the handler runs in the same task
        return await continuation(handler_call_details)

    def _client(self, details: grpc.HandlerCallDetails) -> str | None:
        for key, value in details.invocation_metadata:
            scheme, _, token = (
                value.partition(" ") if key == "authorization" and isinstance(value, str) else ("", "", "")
            )
            if scheme.lower() == "bearer":
                return self._tokens.client(token)
        return None

    async def _deny(self, messages: object, context: grpc.aio.ServicerContext) -> None:
        self._metrics.refusal("token")
        self._refused.warning("refused", "token", code="UNAUTHENTICATED")
        await context.abort(
            grpc.StatusCode.UNAUTHENTICATED, "metadata must have a valid `authorization: Bearer TOKEN`, got none"
        )


def client_of(context: grpc.aio.ServicerContext) -> str:
    """Whose rate a call counts against: the name of its token, else of its certificate, else its address."""
    if name := _name.get(None):
        return f"token {name}"
    if names := context.auth_context().get("x509_common_name"):
        return f"certificate {names[0].decode(errors='replace')}"
    return context.peer().rpartition(":")[0]  # without the port, which changes with every connection


class RateLimit:
    """A token bucket of rows for each client.

    A request passes whenever its client's balance is above zero, and may take it below: a large request passes as
    well as small ones, and the next then waits longer.

    Args:
        rows: a second and client; 0 for no limit.
    """

    def __init__(self, rows: int) -> None:
        self._rate = rows
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # balance, when

    def take(self, client: str, rows: int) -> None:
        """Raise a Refusal if `client` is beyond its rate."""
        if not self._rate:
            return
        now = time.monotonic()
        full = float(self._rate * BURST_SECONDS)
        balance, then = self._buckets.pop(client, (full, now))
        balance = min(full, balance + (now - then) * self._rate)
        passes = balance > 0
        self._buckets[client] = (balance - rows if passes else balance, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)  # who was quiet longest
        if not passes:
            raise Refusal(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "rate",
                f"a client must send {self._rate} rows a second at most, got more",
                retry_ms=int(1000 * -balance / self._rate) + 1,
            )


def _read(path: Path) -> tuple[list[tuple[str, bytes]], str]:
    """The clients in a file, and what is wrong with it, which quotes no token; empty if nothing is."""
    fault = ""
    if path.stat().st_mode & stat.S_IROTH:
        fault = f"not be readable by others (chmod o-r), got {path}, which is"
    clients: list[tuple[str, bytes]] = []
    names = set()
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] in names or not words[1].isascii():
            fault = fault or f"have lines `NAME TOKEN` with a name each, got another in line {number} of {path}"
        if len(words) == 2:
            names.add(words[0])
            clients.append((words[0], hashlib.sha256(words[1].encode()).digest()))
    return clients, fault
