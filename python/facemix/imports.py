"""The option `--import`: modules of a user's own, which register networks (`facemix.models.register`).

A file names its network, and the registry knows how to build it. Who registers it is said on the command line, never in
a file: one that chose what is imported could run any code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterable

from .errors import FacemixError

__all__ = ["add_import", "import_modules"]


def add_import(parser: argparse.ArgumentParser) -> None:
    """Declare the option; its values are `modules`."""
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module first that registers a network of your own, such as mynet for mynet.py in this folder; "
        "may be given several times",
    )


def import_modules(names: Iterable[str]) -> None:
    """Import modules by name; the working directory is looked in first, as `python -m` does.

    Raises:
        FacemixError: if one cannot be imported, whatever it raised.
    """
    for name in names:
        if (here := os.getcwd()) not in sys.path:
            sys.path.insert(0, here)
        try:
            importlib.import_module(name)
        except Exception as error:  # a module may raise anything
            raise FacemixError(
                f"import: --import must be the name of a module that can be imported, such as mynet for mynet.py in "
                f"this folder, got {name!r}: {type(error).__name__}: {error}"
            ) from error
