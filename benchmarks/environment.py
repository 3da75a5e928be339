"""Where a result comes from: CPU, instruction set, versions, commit. No names of hosts, users or paths."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from facemix_ops.native import C

LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PACKAGES = ("facemix", "torch", "onnxruntime", "onnx", "numpy", "pytest-benchmark")


def commit_of(info: dict[str, Any]) -> str:
    """Of what pytest-benchmark says, with a word where the tree had other changes."""
    return info["id"] + (" and changes" if info["dirty"] else "")


def describe(commit: dict[str, Any], cpu: dict[str, Any], packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Date, commit, machine and versions, for a result file. ``commit`` and ``cpu`` are pytest-benchmark's."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit_of(commit),
        "machine": {
            "cpu": cpu.get("brand_raw", "unknown"),
            "family and model": f"{cpu.get('family', 'unknown')}, {cpu.get('model', 'unknown')}",
            "cores": os.cpu_count(),
            "capability": C.capability(),
            "system": f"{platform.system()} {platform.machine()}",
            "large pages": LARGE_PAGES.read_text().strip() if LARGE_PAGES.exists() else "unknown",
        },
        "versions": {"python": platform.python_version(), "compiler": C.compiler}
        | {package: version(package) for package in packages},
    }
