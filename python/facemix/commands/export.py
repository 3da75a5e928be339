"""`facemix export`: the cloud half for an inference server of somebody else's."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add", "run"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "export",
        help="write the cloud half for NVIDIA Triton Inference Server",
        description="Write the middle of a network, which computes on mixtures, as a model repository for NVIDIA "
        "Triton Inference Server: an ONNX model, checked against PyTorch before it is put in place, and a "
        "config with dynamic batching and a bounded queue. Versions of a model go side by side.",
    )
    parser.add_argument("--format", choices=["triton"], required=True, help="what to write")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="cloud part, a .safetensors file")
    parser.add_argument("--out", type=Path, required=True, metavar="REPO", help="the model repository, a folder")
    parser.add_argument(
        "--wire-dtype",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="what the edge sends (default: %(default)s); Triton's ONNX Runtime backend has no bfloat16",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=None,
        metavar="N",
        help="rows that are computed at once; Triton refuses messages with more (default: as many as fit into a "
        "message of the edge, 32 at least)",
    )
    parser.add_argument(
        "--max-delay-us",
        type=int,
        default=2000,
        metavar="N",
        help="how long a request may wait for others to share a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--instances",
        type=int,
        default=1,
        metavar="N",
        help="of the model, on each GPU, or on the CPU where there is none (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="replace the version, where it exists")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write the repository and say where the model is.

    Raises:
        ValueError, OSError, FacemixError: see `facemix.export_triton`.
    """
    for name, low, high in (("max_batch", 1, 65536), ("max_delay_us", 0, 10_000_000), ("instances", 1, 64)):
        value = getattr(arguments, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"export: --{name.replace('_', '-')} must be between {low} and {high}, got {value}")

    from facemix.cloud.model import CloudModel
    from facemix.export_triton import export_triton

    model = CloudModel(arguments.model)
    version = export_triton(
        model,
        arguments.out,
        wire_dtype=arguments.wire_dtype,
        max_batch=arguments.max_batch,
        max_delay_us=arguments.max_delay_us,
        instances=arguments.instances,
        force=arguments.force,
    )
    print(f"facemix export: {model.name} version {model.version} in {version}")
