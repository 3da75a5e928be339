"""The result of benchmarks/wire_dtypes.py as Markdown: for its own output, and for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "wire_dtypes.json"


def table(data: dict[str, Any]) -> str:
    """A row for each wire dtype."""
    titles = ["on the wire", "KiB up, an image", "accuracy: mean (lowest, highest)", "same prediction as float32",
              "error of the scores, mean", "largest"]  # fmt: skip
    titles += (f"mix, times float32: {workload}" for workload in data["times"])
    rows = []
    for name, row in data["results"].items():
        accuracy = row["accuracy"]
        cells = [
            name,
            f"{row['bytes_up'] / 1024:.2f}",
            f"{mean(accuracy):.1%} ({min(accuracy):.1%}, {max(accuracy):.1%})",
            f"{row['agreement']:.2%}",
            f"{row['mean_error']:.1e}",
            f"{row['largest_error']:.1e}",
        ]
        rows.append(cells + [f"{times[name]:.2f}" if name in times else "-" for times in data["times"].values()])
    return markdown_table(titles, rows)


def section(data: dict[str, Any]) -> str:
    """The table, and where it comes from."""
    where = data["environment"]
    threads = f"{where['threads']} thread{'s' * (where['threads'] > 1)}"
    source = (
        f"The demo's network trained with the mixing in the loop, {data['images']} test faces, groups of "
        f"{data['group_size']}, {data['rounds']} rounds; in each request all dtypes under the same fresh key. "
        f"The error is the largest difference from float32's scores of an image, over the largest of those. "
        f"{where['cpu']}, {where['cores']} cores, {where['capability']}, {threads}; PyTorch "
        f"{where['versions']['torch']}; commit {where['commit'][:7]}, {where['date']}."
    )
    return f"{table(data)}\n\n{source}\n"
