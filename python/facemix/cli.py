"""The command `facemix`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import facemix
from facemix.commands import audit, blind, collapse, cost, demo, export, infer, report, serve, sweep, train
from facemix.errors import FacemixError
from facemix.imports import add_import, import_modules

__all__ = ["main"]

#: Where a package that is missing comes from, if not from the extra `pipeline`.
EXTRA_OF = {"onnx": "export", "onnxruntime": "export", "kserve": "kserve"}

#: Commands that build no network of a user's.
WITHOUT_IMPORT = ("demo", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: the command's, or 1 after a line about what went wrong."""
    parser = argparse.ArgumentParser(
        prog="facemix",
        description="Edge-cloud inference in which the cloud only receives random orthogonal mixtures of "
        "images' features.",
    )
    parser.add_argument("--version", action="version", version=f"facemix {facemix.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (audit, blind, collapse, cost, demo, export, infer, report, serve, sweep, train):
        command.add(commands)
    parser.set_defaults(modules=[])
    for name in commands.choices.keys() - WITHOUT_IMPORT:
        add_import(commands.choices[name])
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        if "forwarded" not in arguments:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.forwarded = rest
    try:
        import_modules(arguments.modules)
        status: int = arguments.run(arguments) or 0
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get(error.name or "", "pipeline")
        print(f"facemix: error: {error}: run `pip install 'facemix[{extra}]'`", file=sys.stderr)
        return 1
    except (ValueError, OSError, FacemixError) as error:
        print(f"facemix: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("facemix: interrupted", file=sys.stderr)
        return 130
    return status
