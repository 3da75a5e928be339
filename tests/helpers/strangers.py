"""Peers of a cloud that are no clients of ours: they speak something else, or nothing, or much too slowly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import grpc
from proxy import Fault, Proxy


def strangers(address: str) -> Iterator[socket.socket]:
    """Connections to `address`, each of another kind."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    host, port = address.split(":")
    for first in (
        b"",
        b"GET /metrics HTTP/1.1\r\nHost: cloud\r\n\r\n",
        b"POST /v2/models/middle/infer HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n[",
        os.urandom(4096),
        preface[:10],
        preface + settings,  # and then nothing
        preface + settings + bytes([255, 255, 255, 0, 0, 0, 0, 0, 1]),  # a frame of 16 MiB
        preface + settings + bytes([0, 0, 4, 1, 0, 0, 0, 0, 1]) + b"junk",  # headers that are none
        preface + settings + os.urandom(4096),
    ):
        peer = socket.create_connection((host, int(port)), timeout=5)
        with contextlib.suppress(OSError):
            peer.sendall(first)
        yield peer


class Slow:
    """Ten clients whose requests reach the cloud a byte at a time."""

    answered = False

    def __init__(self, address: str) -> None:
        self._proxy = Proxy(address)

    async def __aenter__(self) -> Slow:
        self._proxy.__enter__()
        self._proxy.fault = Fault("drip", 100, once=False)
        self._channels = [
            grpc.aio.insecure_channel(self._proxy.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(10)
        ]
        rpc = "/inference.GRPCInferenceService/ModelInfer"
        self._calls = [channel.unary_unary(rpc)(b"\x0a\x06middle" + bytes(5000)) for channel in self._channels]
        for call in self._calls:
            call.add_done_callback(self._done)
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()
        await asyncio.to_thread(self._proxy.__exit__)

    def _done(self, _: object) -> None:
        self.answered = True
