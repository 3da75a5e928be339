"""The demo's last step: a quick audit of what its cloud received."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from facemix.audit.edge import load_edge
from facemix.audit.progress import Terminal
from facemix.audit.record import Audit, scene_json
from facemix.audit.registry import ATTACKS
from facemix.audit.report import write_audit
from facemix.audit.run import run_audit
from facemix.audit.scene import Scene
from facemix.audit.store import Store
from facemix.audit.target import open_cloud
from facemix.data import Labelled, Splits
from facemix.environment import environment
from facemix.pictures import Line
from facemix.storage import file_digest

__all__ = ["audit_demo", "recovered"]

#: The attack whose picture is shown: all of the way from received rows to faces.
SHOWN = "end_to_end"


def audit_demo(edge: Path, cloud: Path, train: Labelled, test: Labelled, seed: int, cache: Path, out: Path) -> Audit:
    """Attack the edge, and write a report.

    Args:
        edge, cloud: files of the two halves.
        train: the attacker has these, and `cloud`.
        test: the victims.
        seed: of all that is drawn.
        cache: folder for what is finished.
        out: folder of the report.
    """
    nobody = train.take(torch.empty(0, dtype=torch.int64))
    half, files = load_edge(edge), {"edge": file_digest(edge), "cloud": file_digest(cloud)}
    scene = Scene.of(half, Splits(train, nobody, test), cloud=open_cloud(cloud), seed=seed, effort="quick")
    with Terminal() as terminal:
        outcomes = run_audit(scene, ATTACKS, store=Store(cache, scene, files), watch=terminal)
    audit = Audit("the demo", ATTACKS, outcomes, {**scene_json(scene), **files}, environment())
    write_audit(audit, out)
    return audit


def recovered(audit: Audit) -> list[Line]:
    """Lines of pictures: what was photographed, and what an attack made of what the cloud received; perhaps none."""
    outcome = audit.outcomes.get(SHOWN)
    if outcome is None or not outcome.pictures:
        return []
    return [
        replace(outcome.pictures[0], caption="Photographs of\nanother request"),
        replace(outcome.pictures[-1], caption="The same, recovered by\nan attack from what the\ncloud received"),
    ]
