"""The demo's figures: as JSON, and as tables on the terminal."""

from __future__ import annotations

import statistics
from typing import Any

from rich.table import Table

from facemix.console import Console

from .measure import Passage

__all__ = ["figures", "show"]


def figures(plain: float, passage: Passage) -> dict[str, Any]:
    """Return the figures of one network as JSON values; `plain` is its accuracy without mixing."""
    return {
        "accuracy_without_mixing": plain,
        "accuracy_through_cloud": statistics.mean(passage.accuracies),
        "accuracy_through_cloud_rounds": passage.accuracies,
        "requests": passage.requests,
        "bytes_up_per_image": passage.bytes_up,
        "bytes_down_per_image": passage.bytes_down,
        "edge_ms_per_image": passage.edge_ms,
        "cloud_ms_per_image": passage.cloud_ms,
        "network_ms_per_image": passage.network_ms,
    }


def show(result: dict[str, Any]) -> None:
    """Print the tables of `result`, the JSON of a demo."""
    console = Console()
    settings, baseline, mixed = result["settings"], result["baseline"], result["mixing_aware"]
    rounds = settings["rounds"]
    accuracy = Table(title=f"Accuracy on {result['test_images']} test faces, groups of {settings['group_size']}")
    accuracy.add_column("network")
    accuracy.add_column("without mixing", justify="right")
    accuracy.add_column(f"through the cloud, mixed\n(mean of {rounds}, lowest, highest)", justify="right")
    for name, row in (("baseline", baseline), ("mixing-aware", mixed)):
        each = row["accuracy_through_cloud_rounds"]
        accuracy.add_row(
            name,
            f"{row['accuracy_without_mixing']:.1%}",
            f"{row['accuracy_through_cloud']:.1%}  ({min(each):.1%}, {max(each):.1%})",
        )
    console.print(accuracy)

    cost = Table(title="Cost per image, mixing-aware network")
    cost.add_column("")
    cost.add_column("", justify="right")
    for label, text in (
        ("upload", f"{mixed['bytes_up_per_image'] / 1024:.2f} KiB"),
        ("download", f"{mixed['bytes_down_per_image'] / 1024:.2f} KiB"),
        ("(the photograph, 8 bits a value)", f"{result['image_bytes'] / 1024:.2f} KiB"),
        ("edge computing", f"{mixed['edge_ms_per_image']:.3f} ms"),
        ("cloud computing", f"{mixed['cloud_ms_per_image']:.3f} ms"),
        ("packing and local network", f"{mixed['network_ms_per_image']:.3f} ms"),
    ):
        cost.add_row(label, text)
    console.print(cost)
    audit = result["audit"]
    console.print("Audit: what a cloud recovers that tries. The mixtures hide photographs from a glance.", style="bold")
    console.print(audit["verdict"]["headline"], markup=False)
    for reason in audit["verdict"]["reasons"]:
        console.print(f"- {reason}", markup=False)
