"""`facemix collapse`: whether one matrix on the edge does what the cloud does."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facemix.atomic import check_place
from facemix.plural import plural

if TYPE_CHECKING:
    from facemix.collapse import Collapse
    from facemix.training.settings import Experiment

__all__ = ["add", "run"]

STAGES = ("mixing_aware", "linear_cloud", "baseline")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "collapse",
        help="replace a trained network's cloud part by one matrix, and say what is lost",
        description="Replace the cloud part of a network that `facemix train` left, and the edge's last layer, by "
        "their mean derivative: one matrix on the features, which the edge can compute by itself. Where it is right as "
        "often as the network through the mix, the cloud is not needed. For a network that was trained otherwise, "
        "use the function facemix.collapse.collapse.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="folder of one seed of an experiment, such as runs/orl/seed-0"
    )
    parser.add_argument(
        "--stage", choices=STAGES, default=STAGES[0], help="which of the networks in RUN (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=256, help="training photographs to use (default: %(default)s)")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the collapsed network as ONNX, pixels to scores"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Collapse, test and print."""
    if arguments.images < 1:
        raise ValueError(f"collapse: --images must be positive, got {arguments.images}")
    if arguments.write is not None:  # which takes packages of its own: not to be found out in the end
        from facemix.export_collapsed import export_collapsed

        check_place("collapse: --write", arguments.write)

    from facemix.data import MEAN, STD, open_data
    from facemix.models import build
    from facemix.report.results import RESULTS, read_result, seed_hint
    from facemix.storage import load_tensors
    from facemix.training.batches import seed_of
    from facemix.training.collapsing import collapse_trained
    from facemix.training.experiment import evaluated, task_of
    from facemix.training.stage import WEIGHTS, WEIGHTS_KIND

    folder: Path = arguments.folder
    trained = folder / arguments.stage / WEIGHTS
    if not trained.is_file():
        rule = f"RUN must hold {arguments.stage}/{WEIGHTS}, as the folder of a seed does"
        raise ValueError(f"collapse: {rule}, got {folder}{seed_hint(folder)}")
    weights, config = load_tensors(trained)
    if config.get("kind") != WEIGHTS_KIND:
        raise ValueError(f"collapse: {trained} must be of kind {WEIGHTS_KIND!r}, got {config.get('kind')!r}")
    results = read_result(folder / RESULTS)
    experiment = _experiment(results["settings"])
    network = build(config["builder"], config["options"])
    network.load_state_dict(weights)
    splits = open_data(experiment.data)
    found = collapse_trained(
        network,
        splits.train,
        evaluated(experiment, splits),
        task_of(experiment, splits),
        experiment,
        seed_of(results["seed"], "collapse"),
        pre=config["pre"],
        post=config["post"],
        group_size=config["group_size"],
        images=arguments.images,
        progress=True,
    )
    if arguments.write is not None:
        shape = found.cost.image_shape
        export_collapsed(arguments.write, found.network.cpu(), shape, mean=[MEAN] * shape[0], std=[STD] * shape[0])
    if arguments.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _show(found, f"{experiment.name}, {arguments.stage}")
        if arguments.write is not None:
            print(f"collapsed network: {arguments.write}")


def _experiment(settings: dict[str, Any]) -> Experiment:
    from jsonargparse import ArgumentParser

    from facemix.training.settings import Experiment

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--experiment", type=Experiment)
    try:
        experiment: Experiment = parser.instantiate(parser.parse_object({"experiment": settings})).experiment
    except argparse.ArgumentError as error:
        raise ValueError(
            f"collapse: the results must hold the settings of an experiment, got {' '.join(str(error).split())}"
        ) from None
    return experiment


def _show(found: Collapse, title: str) -> None:
    from rich.table import Table

    from facemix.console import Console

    table = Table(title=title)
    for column in ("", "right", "agrees", "multiply-adds"):
        table.add_column(column, justify="left" if not column else "right")
    outputs, inputs = found.shape
    matrix, cloud = found.matrix_multiply_adds, found.cost.cloud.multiply_adds
    table.add_row("the network", f"{found.accuracy:.1%}", f"{found.self_agreement:.1%}", f"{cloud} in the cloud")
    table.add_row(
        f"a {outputs} x {inputs} matrix", f"{found.collapsed_accuracy:.1%}", f"{found.agreement:.1%}", f"{matrix}"
    )
    if (low := found.low_rank) is not None:
        table.add_row(f"of rank {low.rank}", f"{low.accuracy:.1%}", f"{low.agreement:.1%}", f"{low.multiply_adds}")
    console = Console()
    console.print(table)
    console.print(
        f"the mean of {plural(found.images, 'derivative')}; of {plural(found.decisions, 'decision')}; agreement "
        "with the network, and of the network with itself under another key; guessing the commonest is right in "
        f"{found.chance:.1%}\n"
        f"{found.verdict}"
    )
