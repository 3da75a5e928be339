"""`facemix serve`: the cloud process."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from facemix.cloud.logs import LEVELS
from facemix.cloud.settings import Settings

__all__ = ["add", "run"]

EPILOG = """\
Memory is bounded by the sum of the models, --queue-mib, --max-message-mib times --max-receiving plus 16 (for other
methods), a window of 64 KiB for each of at most 4096 calls that wait unread, and what a batch of --max-batch rows takes
in the model. The queue holds requests, and answers until they are sent. When it is full, calls are refused with
RESOURCE_EXHAUSTED, and the trailing metadata says when to try again. docs/serving.md says more.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "serve",
        help="run the cloud half: serve the middle of a network over gRPC",
        description="Serve the middle of a network over gRPC (Open Inference Protocol v2). It receives "
        "mixtures of features and returns mixtures of outputs; it holds neither the first nor the last "
        "layer. Stop it with SIGTERM or Ctrl-C.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("models")
    group.add_argument(
        "--model",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="cloud part, a .safetensors file, or a folder of them; may be given several times. Each file is a version "
        "of a model; a request that names no version gets the highest",
    )
    group.add_argument(
        "--reload-seconds",
        type=float,
        metavar="S",
        help="look for new, changed and removed files this often; 0: never (default: %(default)g)",
    )
    group = parser.add_argument_group("address")
    group.add_argument("--host", help="address to listen on (default: %(default)s)")
    group.add_argument("--port", type=int, help="port to listen on; 0 takes a free one (default: %(default)s)")
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--engine",
        choices=("embedded", "kserve"),
        default="embedded",
        help="our own server, or KServe's ModelServer (default: %(default)s)",
    )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        help="auto: cuda where there is one (default: %(default)s)",
    )
    group.add_argument(
        "--threads", type=int, metavar="N", help="threads for inference; 0: PyTorch's choice (default: %(default)s)"
    )
    group.add_argument(
        "--compile", action="store_true", help="run models with torch.compile; each then takes tens of seconds to load"
    )
    group = parser.add_argument_group("batches, of whole requests of any clients for the same model")
    group.add_argument(
        "--max-batch", type=int, metavar="ROWS", help="largest number of rows in a batch (default: %(default)s)"
    )
    group.add_argument(
        "--max-delay-ms",
        type=float,
        metavar="MS",
        help="wait at most so long for requests whose messages are being received; if there are none, a batch starts "
        "at once (default: %(default)g)",
    )
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--queue-mib",
        type=int,
        metavar="MIB",
        help="features, unpacked to float32, that may wait or be computed, and answers, counted twice, until they are "
        "sent (default: %(default)s)",
    )
    group.add_argument("--max-message-mib", type=int, metavar="MIB", help="largest message (default: %(default)s)")
    group.add_argument(
        "--max-receiving",
        type=int,
        metavar="N",
        help="messages received at one time; further calls wait unread (default: %(default)s)",
    )
    group.add_argument(
        "--drain-seconds",
        type=float,
        metavar="S",
        help="how long requests under way, and their answers, may take after a signal to stop (default: %(default)g)",
    )
    group = parser.add_argument_group("security")
    group.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate and its chain, PEM; required outside loopback"
    )
    group.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM, without a password")
    group.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="accept only clients with a certificate of this authority, PEM"
    )
    group.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help="accept only clients with a bearer token: lines `NAME TOKEN`, in a file that others cannot read; "
        "read again when it changes",
    )
    group.add_argument(
        "--rate",
        type=int,
        metavar="ROWS",
        help="rows a second for each client (by token, else certificate, else address), up to ten seconds' worth at "
        "once; 0: no limit (default: %(default)s)",
    )
    group.add_argument("--insecure", action="store_true", help="allow plain text outside loopback")
    group = parser.add_argument_group("observation")
    group.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve Prometheus metrics here; with --engine kserve, all of its HTTP; 0 takes a free one, see the log "
        "(default: off; with --engine kserve, 0)",
    )
    group.add_argument("--metrics-host", metavar="HOST", help="address for them (default: %(default)s)")
    group.add_argument(
        "--log-level",
        choices=LEVELS,
        default="info",
        help="least level of the lines to log, as JSON on standard error (default: %(default)s)",
    )
    given = {name: getattr(Settings, name) for name in Settings.__dataclass_fields__ if hasattr(Settings, name)}
    parser.set_defaults(run=run, **given)


def run(arguments: argparse.Namespace) -> None:
    """Serve until told to stop.

    Raises:
        ValueError, OSError: for an argument that will not do.
    """
    from facemix.cloud.logs import log_to_stderr

    chosen = {name: value for name, value in vars(arguments).items() if name in Settings.__dataclass_fields__}
    settings = Settings(**{**chosen, "model": tuple(arguments.model)})
    log_to_stderr(arguments.log_level)

    import torch

    from facemix.cloud.background import leave
    from facemix.cloud.model import CloudModel
    from facemix.cloud.repository import Repository
    from facemix.cloud.server import serve
    from facemix.device import best_device

    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = best_device().type if settings.device == "auto" else settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("serve: --device must be cpu where PyTorch finds no GPU, got cuda")
    repository = Repository(settings.model, lambda path: CloudModel(path, device=device, compile=settings.compile))
    if arguments.engine == "kserve":
        from facemix.cloud.kserve import serve_kserve

        serve_kserve(settings, repository)
    else:
        asyncio.run(serve(settings, repository))
        leave()
