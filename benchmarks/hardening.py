"""What the hardened modes cost and hide: accuracy, time, and what the audit's attacks recover of each.

    facemix train orl --out runs/orl
    facemix train orl --mix.patches=2 --linear_control=false --longer_control=false --out runs/orl-patches
    python benchmarks/hardening.py runs/orl/seed-0 runs/orl-patches/seed-0 [--effort quick] [--attacks NAME ...]

`make bench-report` puts its tables into docs/hardening.md.

Accuracy is that of the edge's and the cloud's own files, in one process, all test photographs in each round, with fresh
keys, groups and blinders. Another bound on the coefficients is put on the same network: it is not trained for it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import commit_of
from facemix.audit.registry import ATTACKS
from facemix.audit.run import run_audit
from facemix.audit.target import Target
from facemix.audit.verdict import levels
from facemix.blinders_offline import write_blinders
from facemix.cloud.model import CloudModel
from facemix.data import Labelled, channels_last, open_data
from facemix.edge import BlindedHalf, load_half
from facemix.environment import environment
from facemix.training.deploy import CLOUD, EDGE
from facemix.training.settings import DataSettings
from hardening_choice import choice
from hardening_table import COMMITTED, tables
from pytest_benchmark.utils import get_commit_info
from result_file import write

GROUPS = 8  # in a request, but for the last
DATA = DataSettings()


@dataclass(frozen=True)
class Mode:
    """A way to run an edge.

    Attributes:
        name: in the table.
        folder: of the seed of an experiment that trained it.
        max_coeff: bound on the coefficients; 1: none.
        share: of a blinded row; None: not blinded; 0: the default.
    """

    name: str
    folder: Path
    max_coeff: float = 0.6
    share: float | None = None


def modes(run: Path, patches: Path) -> list[Mode]:
    return [
        Mode("no bound", run, 1.0),
        Mode("bound 0.6 (as trained)", run),
        Mode("bound 0.5", run, 0.5),
        Mode("four patches, bound 0.6", patches),
        Mode("blinding, share 0.25", run, share=0.25),
        Mode("blinding", run, share=0),
        Mode("four patches and blinding", patches, share=0),
    ]


def requests(faces: Labelled, size: int, round_: int) -> Iterator[torch.Tensor]:
    """All photographs in a random order; a few come twice, so that the last group is whole."""
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(round_))
    yield from torch.cat((order, order[: -len(order) % size])).split(GROUPS * size)


def accuracy(half: Any, cloud: CloudModel, faces: Labelled, rounds: int) -> dict[str, float]:
    """The share that is right; of an image the edge's CPU time in milliseconds, and what goes up and down."""
    pixels, identity = channels_last(faces.images), faces.labels("identity").numpy()
    right = total = up = down = 0
    seconds = []
    for round_ in range(rounds):
        for rows in requests(faces, half.bundle.group_size, round_):
            start = time.process_time()
            request = half.mix(pixels[rows.numpy()], wire_dtype="float32")
            middle = time.process_time()
            reply = cloud.run(request.payload)
            end = time.process_time()
            with request:
                labels = request.classify(reply).labels
            seconds.append((middle - start + time.process_time() - end) / len(rows))
            right += int((labels == identity[rows.numpy()]).sum())
            total, up, down = total + len(rows), up + request.payload.nbytes, down + reply.nbytes
    return {
        "accuracy": right / total,
        "edge_ms": 1e3 * float(np.median(seconds)),
        "bytes_up": up // total,
        "bytes_down": down // total,
    }


def measure(mode: Mode, faces: Labelled, rounds: int, effort: Any, attacks: list[str] | None) -> dict[str, Any]:
    """All of one mode."""
    print(f"hardening: {mode.name}", flush=True)
    edge, cloud_file = mode.folder / EDGE, mode.folder / CLOUD
    half, cloud = load_half(edge), CloudModel(cloud_file)
    half.bundle = replace(half.bundle, max_coeff=mode.max_coeff)
    row: dict[str, Any] = {"name": mode.name, "max_coeff": mode.max_coeff}
    with tempfile.TemporaryDirectory() as folder:
        pool = None
        if mode.share is not None:
            count = (rounds + 1) * (len(faces) + half.bundle.group_size) * getattr(half, "rows_per_image", 1)
            start = time.process_time()
            blinders = write_blinders(
                Path(folder) / "pool", half, cloud, half.bundle.decoys, count, mode.share or None
            )  # fmt: skip
            per_image = getattr(half, "rows_per_image", 1) / count
            row["offline_ms"] = 1e3 * (time.process_time() - start) * per_image
            row["pool_bytes"] = blinders.path.stat().st_size * per_image
            row["share"] = blinders.blinding.share
            pool, half = blinders.path, BlindedHalf(half, blinders)
        row |= accuracy(half, cloud, faces, rounds)
        scene = Target(edge, DATA, cloud_file, mode.max_coeff, pool).scene(victims=120, seed=0, effort=effort)
        outcomes = run_audit(scene, ATTACKS, only=attacks)
    far = levels(outcomes)
    row["attacks"] = {
        name: {field: getattr(found, field) for field in ("status", "floor", "result", "ceiling", "recovered")}
        | {"level": far[name], "variants": {each.name: each.result for each in found.variants}}
        for name, found in outcomes.items()
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy, cost and privacy of the hardened modes, on ORL.")
    parser.add_argument("run", type=Path, help="folder of a seed of `facemix train orl`")
    parser.add_argument("patches", type=Path, help="folder of a seed of `facemix train orl --mix.patches=2`")
    parser.add_argument("--rounds", type=int, default=5, help="over all faces (default: %(default)s)")
    parser.add_argument(
        "--effort", choices=("quick", "full"), default="quick", help="of attacks (default: %(default)s)"
    )
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--json", type=Path, default=COMMITTED, help="result file (default: %(default)s)")
    options = parser.parse_args()
    for folder in (options.run, options.patches):
        if not (folder / EDGE).is_file():
            parser.error(f"run and patches must hold {EDGE}, as the folder of a seed does, got {folder}")
    faces, where = open_data(DATA).test, environment()
    data = {
        "environment": {
            "date": datetime.now(UTC).date().isoformat(),
            "commit": commit_of(get_commit_info()),
            **{name: where[name] for name in ("cpu", "cores", "threads", "python", "versions")},
        },
        "images": len(faces),
        "rounds": options.rounds,
        "effort": options.effort,
        "choice": choice(options.run, faces, options.rounds),
        "modes": [
            measure(mode, faces, options.rounds, options.effort, options.attacks)
            for mode in modes(options.run, options.patches)
        ],
    }
    print("\n\n".join(tables(data).values()))
    write(options.json, json.dumps(data, indent=1) + "\n")
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
