"""Stands for `facemix train` in tests of the sweep: takes its options, trains nothing, and leaves made-up results.

FAKE_TRAIN holds what should happen, words apart by spaces: `fail:ROW/seed-K` ends with an error, `hang:ROW/seed-K`
writes its process id to ROW/hanging and sleeps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from experiments import results, save


def main() -> int:
    """Do as told; every call is a line in `calls` beside the folder of the row."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("command", "recipe"):
        parser.add_argument(name)
    for name in ("--out", "--baselines"):
        parser.add_argument(name, type=Path)
    for name in ("--first-seed", "--seeds", "--mix.group_size", "--model.pre"):
        parser.add_argument(name, type=int, default=1)
    arguments, others = parser.parse_known_args()
    size, pre, seed = (vars(arguments)[name] for name in ("mix.group_size", "model.pre", "first_seed"))
    call = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    call |= {"row": arguments.out.name, "seed": seed, "others": others}
    with (arguments.out.parent / "calls").open("a") as calls:
        calls.write(json.dumps(call) + "\n")
    told = os.environ.get("FAKE_TRAIN", "").split()
    if f"fail:{arguments.out.name}/seed-{seed}" in told:
        print("no such photographs")
        return 3
    if f"hang:{arguments.out.name}/seed-{seed}" in told:
        (arguments.out / "hanging").write_text(str(os.getpid()))
        time.sleep(60)
    accuracies = {"baseline": 0.9, "baseline_longer": 0.92}
    if size > 1:
        # More of the network on the edge is better, larger groups are worse.
        mixed = 0.8 + 0.02 * pre - 0.01 * size
        accuracies |= {"mixing_aware": mixed, "linear_cloud": 0.5, "collapsed": 0.4}
    save(arguments.out, results(seed, accuracies, group_size=size, pre=pre))
    return 0


if __name__ == "__main__":
    sys.exit(main())
