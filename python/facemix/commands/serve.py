"""`facemix serve`: the cloud process."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

__all__ = ["add", "run"]

MIB = 1024 * 1024


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "serve",
        help="run the cloud half: serve the middle of a network over gRPC",
        description="Serve the middle of a network over gRPC (Open Inference Protocol v2). It receives "
        "mixtures of features and returns mixtures of outputs; it holds neither the first nor the last "
        "layer. Stop it with SIGTERM or Ctrl-C.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="cloud part, a .safetensors file")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one (default: 0)")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads for inference; 0: one for each core (default: 0)"
    )
    parser.add_argument(
        "--max-message-mib",
        type=int,
        default=256,
        metavar="N",
        help="largest message, MiB (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve until told to stop.

    Raises:
        ValueError, OSError: for an argument that will not do.
    """
    for name, low, high in (("port", 0, 65535), ("threads", 0, 1024), ("max_message_mib", 1, 2047)):
        value = getattr(arguments, name)
        if not low <= value <= high:
            raise ValueError(f"serve: --{name.replace('_', '-')} must be between {low} and {high}, got {value}")

    import torch

    from facemix.cloud.model import CloudModel
    from facemix.cloud.server import serve

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = CloudModel(arguments.model)
    asyncio.run(serve(model, arguments.host, arguments.port, arguments.max_message_mib * MIB))
