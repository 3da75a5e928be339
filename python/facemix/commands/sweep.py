"""`facemix sweep`: the paper's Figure 4."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from facemix.atomic import check_folder

if TYPE_CHECKING:
    from facemix.training.settings import Experiment

__all__ = ["add", "run"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "sweep",
        help="train over group sizes and partitions: accuracy against privacy and against the edge's cost",
        description="Train a recipe's baseline, and its mixing-aware network for each group size and partition, "
        "several seeds each; write a table (sweep.csv, sweep.md) and the paper's Figure 4 (figure4a.png, "
        "figure4b.png). Every seed of every row is a `facemix train` of its own. The same command resumes a "
        "sweep that was interrupted, and trains nothing twice. Further options, such as --mixed.epochs 20, go "
        "to `facemix train`.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="recipe of `facemix train`: a name, or a YAML file")
    parser.add_argument(
        "--group-sizes",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="S",
        help="images in a group; 1: no mix (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--pre",
        type=int,
        nargs="+",
        default=[1, 2, 3],
        metavar="N",
        help="blocks in the edge's first part (default: 1 2 3)",
    )
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="seeds of each row (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("facemix-sweep"),
        metavar="DIR",
        help="folder for all results (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="trainings at once (default: one for each CUDA device, or one)"
    )
    parser.set_defaults(run=run, forwarded=[])


def run(arguments: argparse.Namespace) -> int:
    """Train, write, and list what failed; 1 where something did."""
    from facemix.commands.train import experiment_parser, read_experiment
    from facemix.sweep import Plan, run_sweep

    def experiment_of(row: list[str]) -> Experiment:
        parser = experiment_parser("facemix sweep", "")
        return read_experiment(parser, [arguments.recipe, *arguments.forwarded, *row])[1]

    sizes, pre = tuple(arguments.group_sizes), tuple(arguments.pre)
    options = (*(f"--import={module}" for module in arguments.modules), *arguments.forwarded)
    plan = Plan(arguments.recipe, options, experiment_of([]), sizes, pre, arguments.seeds, arguments.out)
    check_folder("sweep: --out", arguments.out)
    _check({job.row: experiment_of(plan.settings(job)) for job in (*plan.baselines, *plan.mixed) if not plan.done(job)})
    failures = run_sweep(plan, arguments.jobs)
    for job, reason in failures.items():
        print(f"facemix: error: sweep: {job.name}: {reason}", file=sys.stderr)
    if (table := plan.out / "sweep.md").exists():
        print(f"sweep: {table}")
    return 1 if failures else 0


def _check(rows: dict[str, Experiment]) -> None:
    """See now what a row's training would refuse: its turn comes only when the baselines are trained."""
    from facemix.data import open_data
    from facemix.training.experiment import prepared

    splits = None
    for row, experiment in rows.items():
        splits = splits or open_data(experiment.data)  # which rows do not differ in
        try:
            prepared(experiment, 0, splits)
        except ValueError as error:
            raise ValueError(f"sweep: {row}: {error}") from error
