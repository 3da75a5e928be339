"""What this installation is and runs on: ``python -m facemix_ops.info``."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys

from . import __version__
from .table import print_table


def collect() -> dict[str, str]:
    """Name and value of everything a bug report should carry.

    Raises:
        ImportError: no kernels were compiled for this Python.
        ValueError: FACEMIX_CPU_CAPABILITY names an instruction set that this CPU, or this build, has not.
    """
    from .native import C

    def version(package: str) -> str:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return "not installed"

    return {
        "facemix": __version__,
        "python": f"{sys.version.split()[0]} ({platform.system()} {platform.machine()})",
        "numpy": version("numpy"),
        "torch": version("torch"),
        "triton": version("triton"),
        "compiler": C.compiler,
        "cpu capability": C.capability(),
        "instruction sets, available": " ".join(C.available_capabilities()),
        "instruction sets, compiled": " ".join(C.compiled_capabilities()),
        "cuda architectures": C.cuda_architectures or "none (built without CUDA)",
        "cuda kernels": C.cuda_ops or "none",
        "FACEMIX_BACKEND": os.environ.get("FACEMIX_BACKEND") or "not set",
        "FACEMIX_CPU_CAPABILITY": os.environ.get("FACEMIX_CPU_CAPABILITY") or "not set",
    }


def main() -> int:
    """Prints the table and returns `print_table`'s exit status; ends with 1 after a line about what keeps the kernels
    from running."""
    parser = argparse.ArgumentParser(
        prog="python -m facemix_ops.info", description="Everything a bug report should carry."
    )
    parser.parse_args()
    try:
        rows = collect()
    except (ImportError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    return print_table(rows)


if __name__ == "__main__":
    sys.exit(main())
