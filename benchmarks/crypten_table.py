"""The result of benchmarks/crypten_race.py as Markdown: for its own output, and for docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "crypten.json"
HEADER = ("ResNet-18 at 224x224", "s an image", "MB an image", "peak memory, MB", "what the computing side learns")
MIXED = "mixtures of 8, from which published attacks recover images"
NOTHING = {
    "public": "nothing, while both keep to the protocol",
    "shared": "nothing, and the edge does not learn the weights",
}


def table(data: dict[str, Any]) -> str:
    """A row for each way to compute; medians."""
    whole, split = data["whole"], data["split"]
    images = split["images"]
    rows = [
        ["PyTorch in one process", f"{median(whole['seconds']) / whole['images']:.3g}", "-", "-", "the image"],
        [
            f"split, one group of {images}",
            f"{median(split['seconds']) / images:.3g}",
            f"{(split['cost']['bytes_up'] + split['cost']['bytes_down']) / images / 1e6:.3g}",
            f"{split['peak_bytes'] / 1e6:.0f} edge, {split['cloud_peak_bytes'] / 1e6:.0f} cloud",
            MIXED,
        ],
    ]
    for entry in data["crypten"]:
        rows.append(
            [
                f"CrypTen, two parties, weights {entry['weights']}",
                f"{median(entry['seconds']):.3g}",
                f"{entry['bytes'] / 1e6:.0f}",
                " and ".join(f"{peak / 1e6:.0f}" for peak in entry["peak_bytes"]),
                NOTHING[entry["weights"]],
            ]
        )
    return markdown_table(HEADER, rows)


def section(data: dict[str, Any]) -> str:
    """The table, what it compares, and where it comes from."""
    machine, versions, split = data["machine"], data["versions"], data["split"]
    deviation = max(entry["deviation"] for entry in data["crypten"])
    public = data["crypten"][0]
    source = (
        f"**These do not protect alike**: the last column is the point of the table. A split request always holds "
        f"whole groups: one image alone takes {median(split['seconds']):.3g} s and the bytes of {split['images']}. "
        f"Only a network that was trained for the mix is right through it. Medians of {len(split['seconds'])} requests "
        f"and {len(public['seconds'])} images through CrypTen, one at a time, with its default provider, in which "
        f"one party deals the randomness at no cost, on one thread a party, with batch norms folded, in "
        f"{public['rounds']} rounds of communication; its scores, of which the largest is "
        f"{public['largest_score']:.2g}, are within {deviation:.2g} of PyTorch's. All on loopback. {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['capability']}; PyTorch {versions['torch']}, CrypTen "
        f"{versions['crypten']}; commit {data['commit'][:7]}, {data['date']}."
    )
    return f"{table(data)}\n\n{source}\n"
