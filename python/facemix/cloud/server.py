"""The server process: listens, says on which port, and stops when told."""

from __future__ import annotations

import asyncio
import signal

import grpc

from facemix.wire.open_inference_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from .model import CloudModel
from .servicer import Servicer

__all__ = ["serve"]

STOP_SECONDS = 5.0  # how long requests that run when we are told to stop may take to end


async def serve(model: CloudModel, host: str, port: int, max_message_bytes: int) -> None:
    """Serve `model` until SIGTERM or SIGINT; port 0 takes a free one. Prints one line when it listens.

    Raises:
        OSError: if the address is not to be had.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Otherwise a second server on the same port would start, and share its requests at random.
            ("grpc.so_reuseport", 0),
        ]
    )
    add_GRPCInferenceServiceServicer_to_server(Servicer(model), server)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise OSError(f"serve: {host}:{port} must be a free address of this machine") from error
    await server.start()
    print(f"facemix cloud: serving {model.name} on {host}:{bound}", flush=True)
    await stop.wait()
    await server.stop(STOP_SECONDS)
