"""`facemix report`: writes the report of experiments again."""

from __future__ import annotations

import argparse
from pathlib import Path

from facemix.atomic import check_folder

__all__ = ["add", "run"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="write the report of trained experiments, or of several beside one another",
        description="Read the results that `facemix train` left, and write report.html (one file, with everything in "
        "it), report.md and results.json: whether mixing pays off, accuracy over the seeds, controls, cost, curves, "
        "confusion, settings, machine.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="folder of an experiment (train's --out)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: the only DIR)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Read and write."""
    from facemix.report import HTML, write_report

    if arguments.out is None and len(arguments.folders) > 1:
        raise ValueError(f"report: --out must be given with several folders, got {len(arguments.folders)}")
    out = arguments.out or arguments.folders[0]
    if arguments.out is not None:
        check_folder("report: --out", out)
    write_report(arguments.folders, out)
    print(f"report: {out / HTML}")
