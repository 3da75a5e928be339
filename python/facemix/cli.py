"""The command `facemix`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import facemix
from facemix.commands import audit, blind, collapse, cost, demo, export, infer, report, serve, sweep, train
from facemix.commands.parsing import Parser
from facemix.damaged import NO_MEMORY
from facemix.errors import FacemixError
from facemix.imports import add_import, import_modules

__all__ = ["main"]

#: Where a package that is missing comes from, if not from the extra `pipeline`; and what `infer` needs alone.
EXTRA_OF = {
    **dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "export"),
    **dict.fromkeys(("kserve", "starlette"), "kserve"),  # which brings starlette along
}
EDGE = {"grpc", "google", "PIL", "tqdm", "rich"}
PIPE = 141  # as a shell says it of a command that SIGPIPE ended

#: Commands that build no network of a user's.
WITHOUT_IMPORT = ("demo", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: the command's, or 1 after a line about what went wrong."""
    parser = Parser(
        prog="facemix",
        description="Edge-cloud inference in which the cloud only receives random orthogonal mixtures of "
        "images' features.",
    )
    parser.add_argument("--version", action="version", version=f"facemix {facemix.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    for command in (audit, blind, collapse, cost, demo, export, infer, report, serve, sweep, train):
        command.add(commands)
    parser.set_defaults(modules=[])
    for name in commands.choices.keys() - WITHOUT_IMPORT:
        add_import(commands.choices[name])
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        if "forwarded" not in arguments:
            commands.choices[arguments.command].error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.forwarded = rest
    try:
        import_modules(arguments.modules)
        status: int = arguments.run(arguments) or 0
        print(end="", flush=True)  # what is left must not meet a closed pipe when Python ends
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        lean = arguments.command == "infer" and missing in EDGE
        extra = "edge" if lean else EXTRA_OF.get(missing, "pipeline")
        print(f"facemix: error: {error}: run `pip install 'facemix[{extra}]'`", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    except (ImportError, ValueError, OSError, FacemixError) as error:
        print(f"facemix: error: {_option(arguments, error)}{error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        print(f"facemix: error: {arguments.command}: there is not enough memory for this: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("facemix: interrupted", file=sys.stderr)
        return 130
    return status


def _option(arguments: Namespace, error: Exception) -> str:
    """Which option named the file that the system did not like."""
    path = getattr(error, "filename", None)
    forwarded = [part for text in getattr(arguments, "forwarded", ()) for part in text.split("=", 1)]
    options = {Path(value): name for name, value in pairwise(forwarded) if name.startswith("--")}
    options |= {v: f"--{n.replace('_', '-')}" for n, v in vars(arguments).items() if isinstance(v, Path)}
    name = options.get(Path(path)) if isinstance(path, str) else None
    return f"{name}: " if name else ""
