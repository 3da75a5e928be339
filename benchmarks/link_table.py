"""The result of benchmarks/link.py as Markdown: for its own output, and for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "link.json"
HEADER = (
    "workload",
    "on the wire",
    "KiB up",
    "messages",
    "loopback, s",
    "over 4G, s",
    "predicted, s",
    "took longer by",
)


def table(entries: list[dict[str, Any]]) -> str:
    """A row for each workload and datatype: medians over the rounds."""
    rows = []
    for entry in entries:
        cost, seconds = entry["cost"], {name: median(values) for name, values in entry["seconds"].items()}
        rows.append(
            [
                f"{entry['workload']}, {cost['images']} images",
                entry["wire"],
                f"{cost['bytes_up'] / 1024:.0f}",
                f"{cost['messages']}",
                *(f"{seconds[name]:.3g}" for name in ("loopback", "measured", "predicted")),
                f"{off_by(entry):+.1%}",
            ]
        )
    return markdown_table(HEADER, rows)


def off_by(entry: dict[str, Any]) -> float:
    """How much longer a request took than predicted, as a fraction: the median of the rounds."""
    seconds = entry["seconds"]
    return median(m / p - 1 for m, p in zip(seconds["measured"], seconds["predicted"], strict=True))


def section(data: dict[str, Any]) -> str:
    """The table, how good the link is, and where the figures come from."""
    off = [median(entry["measured"]) / entry["predicted"] - 1 for entry in data["transfers"]]
    plain, tls = ((median(entry["measured"]), entry["predicted"]) for entry in data["setup"])
    machine, versions = data["machine"], data["versions"]
    source = (
        f"Medians of {data['rounds']} rounds, the last column too, on an open connection. Bare TCP transfers through "
        f"the same proxy took {min(off):+.1%} to {max(off):+.1%} longer; to set up a gRPC connection took "
        f"{plain[0]:.3f} s (predicted {plain[1]:.3f}), with TLS {tls[0]:.3f} s ({tls[1]:.3f}). {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['capability']}; PyTorch {versions['torch']}, grpcio "
        f"{versions['grpcio']}; commit {data['commit'][:7]}, {data['date']}."
    )
    return f"{table(data['requests'])}\n\n{source}\n"
