"""`facemix sweep`: the paper's Figure 4."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["add", "run"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "sweep",
        help="train over group sizes and partitions: accuracy against privacy and against the edge's cost",
        description="Train a recipe's baseline, and its mixing-aware network for each group size and partition, "
        "several seeds each; write a table (sweep.csv, sweep.md) and the paper's Figure 4 (figure4a.png, "
        "figure4b.png). Every seed of every row is a `facemix train` of its own. What is trained is not trained "
        "again: an interrupted sweep goes on with the same command. Further options, such as --mixed.epochs 20, go "
        "to `facemix train`.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="of `facemix train`: a name, or a YAML file")
    parser.add_argument(
        "--group-sizes", type=int, nargs="+", default=[1, 2, 4, 8], metavar="S", help="1: no mix (default: 1 2 4 8)"
    )
    parser.add_argument(
        "--pre", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="blocks of its first part (default: 1 2 3)"
    )
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="of each row (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("facemix-sweep"), metavar="DIR", help="folder for all (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="trainings at once (default: one for each CUDA device, or one)"
    )
    parser.set_defaults(run=run, forwarded=[])


def run(arguments: argparse.Namespace) -> int:
    """Train, write, and list what failed; 1 where something did."""
    from facemix.commands.train import experiment_parser, read_experiment
    from facemix.sweep import Plan, run_sweep

    options = arguments.forwarded
    _, experiment = read_experiment(experiment_parser("facemix sweep", ""), [arguments.recipe, *options])
    sizes, pre = tuple(arguments.group_sizes), tuple(arguments.pre)
    passed_on = (*(f"--import={module}" for module in arguments.modules), *options)
    plan = Plan(arguments.recipe, passed_on, experiment, sizes, pre, arguments.seeds, arguments.out)
    failures = run_sweep(plan, arguments.jobs)
    for job, reason in failures.items():
        print(f"facemix: error: sweep: {job.name}: {reason}", file=sys.stderr)
    print(f"sweep: {plan.out / 'sweep.md'}")
    return 1 if failures else 0
