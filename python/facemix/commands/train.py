"""`facemix train`: an experiment, from a recipe or a YAML file of your own; every setting is an option, too."""

from __future__ import annotations

import argparse
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemix.atomic import check_folder

from .parsing import settings_parser

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from facemix.training.settings import Experiment

__all__ = ["add", "experiment_parser", "read_experiment", "recipes", "run"]

RECIPES = Path(__file__).parent.parent / "recipes"
SUFFIXES = (".yaml", ".yml", ".json")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command. Its options come from the settings of an experiment, and are parsed by `run`."""
    parser = commands.add_parser(
        "train",
        help="train a network with the mix in the loop, its baseline and its controls, and report what came of them",
        add_help=False,
    )
    parser.set_defaults(run=run, forwarded=[])


def recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def experiment_parser(prog: str, description: str) -> ArgumentParser:
    """A parser for a recipe and all settings of `Experiment`."""
    from facemix.training.settings import Experiment

    parser = settings_parser(prog, description)
    parser.add_argument("--config", action="config", help="a YAML file, in place of a recipe or on top of it")
    parser.add_class_arguments(Experiment)
    return parser


def read_experiment(parser: ArgumentParser, rest: list[str]) -> tuple[Any, Experiment]:
    """Parse what follows the command: a recipe, then options, which win over it.

    Returns:
        What else `parser` knows, and the experiment.

    Raises:
        ValueError: if settings do not go together.
        SystemExit: if there is no such recipe, or a setting will not do.
    """
    from jsonargparse import Namespace

    from facemix.training.settings import Experiment

    if rest and not rest[0].startswith("-"):
        found = recipes().get(rest[0], Path(rest[0]))
        if not found.is_file():
            parser.error(f"RECIPE must be one of {', '.join(recipes())}, or a file, got {rest[0]!r}")
        if found.suffix not in SUFFIXES:
            parser.error(f"RECIPE must be a YAML file ({' or '.join(SUFFIXES)}), got {rest[0]!r}")
        rest = ["--config", str(found), *rest[1:]]
    try:
        arguments = parser.parse_args(rest)
    except UnicodeDecodeError as error:
        parser.error(f"a file of settings must be text in UTF-8, got other bytes: {error}")
    names = Experiment.__dataclass_fields__
    for name, default in vars(Experiment()).items():
        if is_dataclass(default) and not isinstance(arguments[name], Namespace):
            parser.error(f"--{name} must be settings by name, got {arguments[name]!r}")
    values = parser.instantiate(Namespace({name: arguments[name] for name in names}))
    return arguments, Experiment(**{name: values[name] for name in names})


def run(arguments: argparse.Namespace) -> None:
    """Train, measure and report."""
    parser = experiment_parser(
        "facemix train [RECIPE]",
        "Train a baseline, then from it a network with the mix in its forward pass, and controls: the baseline itself "
        "for as many epochs more, and a network whose cloud part is linear; measure all of them, through the mix and "
        "without it; write the files that `facemix serve` and `facemix infer` take, and a report. RECIPE is one of "
        f"{', '.join(recipes())}, or a YAML file; options win over it. The same command resumes an interrupted "
        "training. Under torchrun, or with --trainer.devices, several processes share the work. With --import MODULE, "
        "model.name may be a network of your own (docs/serving.md).",
    )
    parser.add_argument("--out", type=Path, default=None, help="folder for all results (default: runs/NAME)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds to train")
    parser.add_argument("--first-seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--baselines", type=Path, default=None, help="folder of baselines that several experiments share"
    )
    if not arguments.forwarded:
        parser.error(f"RECIPE must be one of {', '.join(recipes())}, or a file, or settings be given, got neither")
    options, experiment = read_experiment(parser, arguments.forwarded)
    seeds, first = options.seeds, options.first_seed
    if seeds < 1 or first < 0:
        raise ValueError(f"train: --seeds must be positive and --first-seed not negative, got {seeds} and {first}")

    out: Path = options.out or Path("runs") / experiment.name
    check_folder("train: --out", out)
    if options.baselines is not None and not options.baselines.is_dir():  # one that is there need only be read
        check_folder("train: --baselines", options.baselines)

    from facemix.data import open_data
    from facemix.training.experiment import check_finished, run_experiment
    from facemix.training.stage import is_first_process

    splits = open_data(experiment.data)
    check_finished(out, experiment, splits)
    for seed in range(first, first + seeds):
        run_experiment(experiment, seed, out / f"seed-{seed}", splits, options.baselines)
    if is_first_process():
        from facemix.report import HTML, write_report

        write_report([out], out)
        print(f"report: {out / HTML}")
