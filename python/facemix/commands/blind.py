"""`facemix blind`: one-time blinders, made beforehand."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

from facemix.atomic import check_place
from facemix.plural import plural

__all__ = ["add", "run"]

DESCRIPTION = """\
Make a pool of one-time blinders for `facemix infer --blinders`. A blinder is a secret row of noise that
hides a mixed row, and what the cloud answers to it, which is why this takes both halves of a network: run
it where you trust the machine, never in the cloud, and give each edge a pool of its own. A row is used
once, and deleted just before; with a copy or a backup of a pool rows would be used twice, and that gives
images away. docs/hardening.md says what it protects, and what it costs.
"""
KIB = 1024


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "blind",
        help="make one-time rows of noise that hide what is sent to the cloud",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--edge", type=Path, required=True, metavar="FILE", help="edge half, a .safetensors file")
    parser.add_argument("--cloud", type=Path, required=True, metavar="FILE", help="cloud half of the same network")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the pool, a new file")
    parser.add_argument(
        "--rows", type=int, required=True, metavar="N", help="number of rows: one for each image that is sent"
    )
    parser.add_argument(
        "--share",
        type=float,
        metavar="A",
        help="factor of the mixed row in what is sent, 0 to 1: less hides more and is less exact (default: 1 over 4 "
        "times the square root of the values that are sent for an image)",
    )
    parser.add_argument(
        "--decoys",
        type=Path,
        metavar="DIR",
        help="folder of public images of the same kind, to measure the energy of rows (default: the edge half's)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Make the pool, and say what it costs.

    Raises:
        ValueError, OSError, FacemixError: see `facemix.blinders_offline.write_blinders`.
    """
    if arguments.rows < 1:
        raise ValueError(f"blind: --rows must be at least 1, got {arguments.rows}")
    check_place("blind: --out", arguments.out)

    from facemix.blinders_offline import write_blinders
    from facemix.cloud.model import CloudModel
    from facemix.cost.parts import multiply_adds
    from facemix.edge import load_half
    from facemix.infer.sources import public_images

    half, cloud = load_half(arguments.edge), CloudModel(arguments.cloud)
    group, folder, images = half.bundle.group_size, arguments.decoys, half.bundle.decoys
    if folder is not None:
        images = public_images(folder, half.bundle.image_shape)
    if images is None or len(images) < group:
        found = f"{0 if images is None else len(images)} in {folder or 'the edge half'}"
        raise ValueError(f"blind: --decoys must be a folder of {group} public images, a group, or more, got {found}")
    start = time.perf_counter()
    pool = write_blinders(arguments.out, half, cloud, images, arguments.rows, arguments.share, progress=True)
    offline = (time.perf_counter() - start) / arguments.rows
    start = time.perf_counter()
    pool.blinding.rows([bytes(32)], cloud.input_shape)
    online = time.perf_counter() - start
    values, outputs = math.prod(cloud.input_shape), math.prod(cloud.output_shape)
    size, blinding = arguments.out.stat().st_size, pool.blinding
    print(
        f"facemix blind: {plural(arguments.rows, 'row')} for {half.bundle.name} in {arguments.out}, "
        f"{size / KIB:.0f} KiB; a mixed row's share is {blinding.share:.3g}, the noise has standard deviation "
        f"{blinding.level:.3g}\n"
        f"an image costs beforehand {multiply_adds(cloud.module, cloud.input_shape)} multiply-adds and "
        f"{1e3 * offline:.2f} ms here; on the edge {2 * (values + outputs)} multiply-adds, {values} normal values "
        f"({1e3 * online:.2f} ms here), {size / arguments.rows:.0f} bytes of the pool, and no more to send"
    )
