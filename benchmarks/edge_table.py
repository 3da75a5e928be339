"""The result of benchmarks/edge.py as Markdown: for its own output, and for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from marked_pages import markdown_table
from results import digits

COMMITTED = Path(__file__).parent / "results" / "edge.json"
COLUMNS = {
    "install_mb": "installed, MB",
    "peak_mb": "peak memory, MB",
    "import_ms": "import, ms",
    "load_ms": "load, ms",
    "first_request_ms": "first request, ms",
    "mix_p50_ms": "mix, ms",
    "mix_p95_ms": "p95",
    "reply_p50_ms": "reply, ms",
    "reply_p95_ms": "p95",
}


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """A row for each workload and contestant."""
    rows = [
        [workload, who, *(digits(row[column]) for column in COLUMNS)]
        for workload, contestants in results.items()
        for who, row in contestants.items()
    ]
    return markdown_table(["workload", "edge half on", *COLUMNS.values()], rows)


def section(data: dict[str, Any]) -> str:
    """The table, and where it comes from."""
    where, versions = data["environment"], data["environment"]["versions"]
    machine = where["machine"]
    of = f", of {data['rounds']} processes with {data['repeats']} requests each" if "rounds" in data else ""
    source = (
        f"Medians, and the largest of the peaks{of}. {where['threads']} threads, float32 on the wire. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['capability']}; NumPy {versions['numpy']}, PyTorch "
        f"{versions['torch']}, ONNX Runtime {versions['onnxruntime']}; commit {where['commit'][:7]}, {where['date']}."
    )
    return f"{table(data['results'])}\n\n{source}\n"
