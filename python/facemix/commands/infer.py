"""`facemix infer`: the edge half."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from facemix.edge import Security
    from facemix.infer.run import AnyHalf, Classify

__all__ = ["add", "run"]

FORMATS = ("table", "json", "csv")
WIRE_DTYPES = ("float32", "float16", "bfloat16", "int8")
REFUSED = 3  # argparse takes 2

#: What is about sending, and its defaults: with --local, which sends nothing, these must be left as they are.
SENDING: dict[str, Any] = {
    **dict.fromkeys(("decoys", "blinders", "wire_dtype", "ca", "cert", "key", "token_file")),
    "timeout": 30.0,
    "attempts": 5,
    "insecure": False,
}

UNMIXED = (
    "warning: this edge half mixes nothing (groups of 1): the cloud sees every image by itself, as its first part "
    "leaves it; what that hides, facemix audit measures"
)

DESCRIPTION = """\
Classify images: run the first layers here, mix each group of images with a fresh key, let the cloud compute
on the mixtures, un-mix its answer, and run the last layers here. Predictions come in the order of the
images; an image that cannot be used is refused by name and stops no other.
"""

EPILOG = """\
images:
  AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PNM, TIFF and WebP of at most 50 million pixels, at least 16 a side;
  rotated as their EXIF data says, transparency put over mid grey, and cropped around the centre to the
  network's proportions. Of a file with several pictures the first is taken.

exit status:
  0    every image was classified
  1    none was, or the cloud did not answer: one line on standard error says why
  3    some images were refused; each has its reason in its place
  130  Ctrl-C

What was classified before Ctrl-C or a failure is written all the same, and JSON then says "complete": false. Run it
again over just the same images, or over the rest alone: images that are sent again together with others are given
away (docs/security.md). Scores are the network's own, not probabilities. A network that predicts attributes answers
yes or no for each, with the probability that it gives to yes, uncalibrated.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "infer",
        help="classify images through the cloud, which receives mixtures only",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="image files, folders of them, or - to read paths from stdin, one a line",
    )
    parser.add_argument("--edge", type=Path, required=True, metavar="FILE", help="edge half, a .safetensors file")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="HOST:PORT", help="the cloud, which `facemix serve` runs")
    where.add_argument(
        "--local",
        type=Path,
        metavar="FILE",
        help="the cloud half, to run the whole network here without mixing or sending anything, for comparison; "
        "needs PyTorch",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--format", choices=FORMATS, default="table", help="format of the results (default: %(default)s)"
    )
    results.add_argument("--output", type=Path, metavar="FILE", help="write them to FILE, not to standard output")
    results.add_argument(
        "--top",
        type=int,
        default=1,
        metavar="K",
        help="classes for each image (default: 1); of attributes all are shown",
    )
    results.add_argument("--quiet", action="store_true", help="no progress and no line about the cost")
    sending = parser.add_argument_group("sending")
    sending.add_argument(
        "--decoys",
        type=Path,
        metavar="DIR",
        help="folder of public images of the same kind, to fill groups with (default: those in the edge half)",
    )
    sending.add_argument(
        "--blinders",
        type=Path,
        metavar="FILE",
        help="hide each mixed row under a one-time row of noise of this pool (see `facemix blind`); sends float32",
    )
    sending.add_argument("--wire-dtype", choices=WIRE_DTYPES, help="dtype of what is sent (default: the edge half's)")
    sending.add_argument(
        "--request-groups",
        type=int,
        default=8,
        metavar="N",
        help="groups in a request; with --local, groups computed at once (default: %(default)s)",
    )
    sending.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        help="seconds for a request with all its attempts (default: %(default)g)",
    )
    sending.add_argument(
        "--attempts", type=int, metavar="N", help="how often a request may be sent (default: %(default)s)"
    )
    security = parser.add_argument_group("security", "TLS is used for every server except on this machine.")
    security.add_argument("--ca", type=Path, metavar="FILE", help="certificates (PEM) that vouch for the server")
    security.add_argument("--cert", type=Path, metavar="FILE", help="certificate (PEM) of this client")
    security.add_argument("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    security.add_argument("--token-file", type=Path, metavar="FILE", help="file with a bearer token")
    security.add_argument(
        "--insecure", action="store_true", help="no TLS: whoever listens on the way sees what the cloud sees"
    )
    parser.set_defaults(run=run, **SENDING)


def run(arguments: argparse.Namespace) -> int:
    """Classify, write the results, and return the exit status.

    Raises:
        ValueError, OSError, FacemixError: for an argument that will not do, and where the cloud does not answer.
    """
    for name in ("top", "request_groups", "attempts"):
        if (value := getattr(arguments, name)) < 1:
            raise ValueError(f"infer: --{name.replace('_', '-')} must be at least 1, got {value}")
    given = [name for name, default in SENDING.items() if getattr(arguments, name) != default]
    if given and arguments.local is not None:
        raise ValueError(
            f"infer: --{given[0].replace('_', '-')} must be given with --server, got --local, which sends nothing"
        )

    # Imported here, so that `facemix serve` loads nothing of the edge.
    from facemix.edge import load_half
    from facemix.infer.run import classify_all
    from facemix.infer.sources import STDIN, decoys_for, find

    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; what matters is refused by name
    half = load_half(arguments.edge)
    if half.bundle.group_size == 1 and arguments.local is None:
        print(f"facemix infer: {UNMIXED}", file=sys.stderr)
    paths: Iterable[str] = find(arguments.images)
    if STDIN not in arguments.images:
        paths = list(paths)
    if paths == []:
        raise ValueError(f"infer: the folders must hold images, got none in {', '.join(arguments.images)}")
    decoys = None if arguments.local is not None else decoys_for(half.bundle, arguments.decoys)
    with _classifier(arguments, half, decoys) as classify:
        tally = classify_all(
            paths,
            half.bundle,
            classify,
            call_images=arguments.request_groups * half.bundle.group_size,
            decoys=decoys,
            top=arguments.top,
            format=arguments.format,
            output=arguments.output,
            quiet=arguments.quiet,
        )
    if not tally.classified:
        raise ValueError(f"infer: IMAGES must hold one that can be used, got {tally.reason or 'none'}")
    return REFUSED if tally.refused else 0


@contextlib.contextmanager
def _classifier(arguments: argparse.Namespace, half: AnyHalf, decoys: NDArray[np.uint8] | None) -> Iterator[Classify]:
    if arguments.local is not None:
        from facemix.infer.local import LocalModel

        yield LocalModel(half, arguments.local).classify
        return

    from facemix.edge import BlindedHalf, Blinders, Client

    with Client(
        half if arguments.blinders is None else BlindedHalf(half, Blinders(arguments.blinders)),
        arguments.server,
        decoys=decoys,
        wire_dtype=arguments.wire_dtype,
        security=_security(arguments),
        timeout=arguments.timeout,
        attempts=arguments.attempts,
        request_groups=arguments.request_groups,
    ) as client:
        yield client.classify


def _security(arguments: argparse.Namespace) -> Security:
    from facemix.edge import Security

    files: dict[str, Any] = {"ca": arguments.ca, "certificate": arguments.cert, "key": arguments.key}
    contents = {name: None if path is None else path.read_bytes() for name, path in files.items()}
    token = None if arguments.token_file is None else arguments.token_file.read_text(errors="replace").strip()
    return Security(**contents, token=token, insecure=arguments.insecure)
