"""The way to a server of the Open Inference Protocol: bytes there, bytes back. It knows nothing of keys."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from facemix.wire import DATATYPE_OF, WireError, parse
from facemix.wire import open_inference_pb2 as pb
from facemix.wire.names import DATATYPES_PROPERTY, FEATURES, NETWORK, OUTPUTS

from .errors import CloudMismatch, CloudReplyError
from .failures import as_cloud_error
from .security import Address, Security

__all__ = ["Connection", "check_process"]

SERVICE = "/inference.GRPCInferenceService/"

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    # Attempts are ours: they are counted, and wait for as long as the server asks.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # We wait before we try again; gRPC shall not wait longer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


#: Connections whose channel is not closed, and whether this process was forked while there were any.
_open: weakref.WeakSet[Connection] = weakref.WeakSet()
_forked_open = False


def _note_fork() -> None:
    global _forked_open
    _forked_open = _forked_open or len(_open) > 0


os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """Raise RuntimeError in a process that was forked while another had a connection: gRPC would crash it, or wait for
    ever.
    """
    if _forked_open:
        raise RuntimeError(
            "Client: must be made in a process that was forked before the first call of another client, or after that "
            'was closed, got one that was not: fork earlier, or start processes with the method "spawn"'
        )


class Connection:
    """A channel to one server, and what it says of one model. Made in a running event loop, and used in no other.

    One channel: two and four were no faster on loopback.

    Args:
        address, security: see there.
        bundle: of the half that will use the connection.
        wire_dtype: what to send; None: the bundle's, or what the server takes where it does not take that.
        reply_bytes: that a message from there may have. A longer one is refused before it is received: the server
            chooses how many it sends at once.
    """

    def __init__(
        self, address: Address, security: Security, bundle: Any, wire_dtype: str | None, reply_bytes: int
    ) -> None:
        self._address, self._bundle, self._wire_dtype = address, bundle, wire_dtype
        self._metadata = security.metadata
        credentials = security.credentials(address)
        # A proxy is not on this machine, whatever the environment says.
        options: list[tuple[str, Any]] = (
            [*OPTIONS, ("grpc.enable_http_proxy", 0)] if address.loopback else list(OPTIONS)
        )
        options += [
            ("grpc.max_receive_message_length", reply_bytes),
            # Channels of different clients would share a connection, and its limits.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(address.target, options)
        else:
            self._channel = grpc.aio.secure_channel(address.target, credentials, options)
        self._infer = self._channel.unary_unary(f"{SERVICE}ModelInfer")
        self._describe = self._channel.unary_unary(
            f"{SERVICE}ModelMetadata",
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
        )
        self._agreed: str | None = None
        self._asking = asyncio.Lock()
        self._users, self._retired = 0, False
        _open.add(self)

    async def infer(self, message: bytes, timeout: float) -> bytes:
        """Send a serialised ModelInferRequest, and return the serialised response.

        Raises:
            CloudError: see `as_cloud_error`.
        """
        try:
            return await self._infer(message, timeout=timeout, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._agreed = None  # another server, or another version, may answer next
            raise as_cloud_error(error, str(self._address)) from error

    async def wire_dtype(self, timeout: float) -> str:
        """What to send, by what the server says of the model; it is asked once, and again after something failed.

        Raises:
            CloudError: see `as_cloud_error`; CloudMismatch, CloudReplyError if it is not the model of the bundle.
        """
        async with self._asking:
            if self._agreed is None:
                request = pb.ModelMetadataRequest(name=self._bundle.name, version=str(self._bundle.version))
                try:
                    reply = await self._describe(request, timeout=timeout, metadata=self._metadata)
                except grpc.aio.AioRpcError as error:
                    raise as_cloud_error(error, str(self._address)) from error
                self._agreed = self._checked(reply)
            return self._agreed

    @asynccontextmanager
    async def used(self) -> AsyncIterator[Connection]:
        """Keeps the channel open within the block."""
        self._users += 1
        try:
            yield self
        finally:
            self._users -= 1
            if self._retired:
                await self.retire()

    async def retire(self) -> None:
        """Close the channel when nobody uses it any more."""
        self._retired = True
        if not self._users:
            await self._channel.close()
            _open.discard(self)

    def _checked(self, data: bytes) -> str:
        bundle, server = self._bundle, f"{self._bundle.name} at {self._address}"
        try:
            reply = parse(pb.ModelMetadataResponse, data)
        except DecodeError as error:
            raise CloudReplyError(f"Client: {server} must describe the model, got something else") from error
        except WireError as error:
            raise CloudReplyError(f"Client: {server} must describe the model in few words: {error}") from error
        features, outputs = _named(reply.inputs, FEATURES, server), _named(reply.outputs, OUTPUTS, server)
        versions, network = list(reply.versions), reply.properties.get(NETWORK, bundle.network)
        if versions and str(bundle.version) not in versions:
            raise CloudMismatch(f"Client: {server} must have version {bundle.version}, got {_short(versions)}")
        if network != bundle.network:
            raise CloudMismatch(f"Client: {server} must be of network {bundle.network}, got {_short([network])}")
        for what, tensor, wanted in (
            ("take features", features, bundle.features_shape),
            ("answer with outputs", outputs, bundle.outputs_shape),
        ):
            if tuple(tensor.shape)[1:] != tuple(wanted):
                got = list(tensor.shape[1:17])
                raise CloudMismatch(f"Client: {server} must {what} of shape {list(wanted)}, got {got}")
        # A server that is not ours takes the one datatype that it names.
        offered = reply.properties.get(DATATYPES_PROPERTY, features.datatype).split(",")
        return self._wire_dtype_for(offered, server)

    def _wire_dtype_for(self, offered: list[str], server: str) -> str:
        preferred = self._bundle.wire_dtype if self._wire_dtype is None else self._wire_dtype
        choices = [preferred] if self._wire_dtype is not None else [preferred, *DATATYPE_OF]
        for wire_dtype in choices:
            if DATATYPE_OF[wire_dtype] in offered:
                return wire_dtype
        wanted = " or ".join(DATATYPE_OF[choice] for choice in dict.fromkeys(choices))
        raise CloudMismatch(f"Client: {server} must take {wanted}, got {_short(offered)}: choose another wire_dtype")


def _named(tensors: Any, name: str, server: str) -> Any:
    for tensor in tensors:
        if tensor.name == name:
            return tensor
    raise CloudReplyError(f"Client: {server} must have {name}, got {_short([tensor.name for tensor in tensors])}")


def _short(words: list[str]) -> str:
    """What a server said, without letting it write pages into our errors."""
    return ", ".join(repr(word[:80]) for word in words[:8]) or "none"
