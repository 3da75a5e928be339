"""What `facemix demo --json` wrote, as Markdown for the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit_table import FACES
from facemix.report.spread import Spread, percent
from marked_pages import markdown_table

COMMITTED = Path(__file__).parent / "results" / "demo.json"


def section(data: dict[str, Any]) -> str:
    """Accuracy of both networks, what the audit recovered, what a photograph costs, and where the figures come from."""
    settings, mixed, seconds, where = (data[name] for name in ("settings", "mixing_aware", "seconds", "environment"))
    table = markdown_table(
        [
            f"{data['test_images']} test faces of 40 people, groups of {settings['group_size']}",
            "without mixing",
            f"through the cloud, mixed: mean of {settings['rounds']} rounds (lowest, highest)",
            "recovered by the audit",
        ],
        [
            ["baseline", *_accuracies(data["baseline"]), ""],
            [
                "trained with the mixing in the loop",
                *_accuracies(mixed),
                f"**the features of {_faces(data['audit'])}**",
            ],
        ],
    )
    text = (
        f"A photograph costs {mixed['bytes_up_per_image'] / 1024:.1f} KiB up and "
        f"{mixed['bytes_down_per_image'] / 1024:.1f} KiB down, {mixed['edge_ms_per_image']:.2f} ms of computing on the "
        f"edge and {mixed['cloud_ms_per_image']:.2f} ms in the cloud. The demo took {seconds['total']:.0f} s, "
        f"{seconds['audit']:.0f} s of them for the audit. ({where['cpu']}, {where['cores']} cores; PyTorch "
        f"{where['versions']['torch']}; commit {where['commit'][:7]}.)"
    )
    return f"{table}\n\n{text}\n"


def _accuracies(network: dict[str, Any]) -> list[str]:
    rounds = Spread.of(network["accuracy_through_cloud_rounds"])
    through = f"{percent(rounds.mean)} ({percent(rounds.low)}, {percent(rounds.high)})"
    return [percent(network["accuracy_without_mixing"]), through]


def _faces(audit: dict[str, Any]) -> str:
    (attack,) = (attack for attack in audit["attacks"] if attack["name"] == "end_to_end")
    (found,) = (variant for variant in attack["variants"] if variant["name"] == FACES)
    return f"{percent(found['result'])} of the photographs"
