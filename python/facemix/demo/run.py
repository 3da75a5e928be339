"""The demo from beginning to end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from facemix.audit.report import HTML
from facemix.data import Labelled
from facemix.environment import environment
from facemix.training.measure import measure
from facemix.training.stages import Trained
from facemix.training.task import IdentityTask

from .audit import audit_demo, recovered
from .measure import through_cloud
from .models import train_baseline, train_mixed
from .picture import draw
from .report import figures
from .settings import PICTURE, DemoSettings

__all__ = ["run_demo"]


def run_demo(
    settings: DemoSettings, train: Labelled, test: Labelled, out: Path, cache: Path, fresh: bool = False
) -> dict[str, Any]:
    """Train, serve, measure, attack and draw; returns all figures as JSON values.

    Args:
        settings: see there.
        train, test: disjoint images of the same people.
        out: folder for the picture, the files of clouds and edges, and the report of the audit.
        cache: folder for trained weights and finished attacks; what was interrupted goes on from there.
        fresh: train again even if the cache has the result.
    """
    start = time.perf_counter()
    baseline = train_baseline(settings, train, cache, fresh)
    mixed = train_mixed(settings, train, baseline, cache, fresh)
    trained = time.perf_counter()
    # The training photographs are public, so they serve as decoys.
    passages = {
        name: through_cloud(network, name, settings, test, train.images, out)
        for name, network in (("baseline", baseline), ("mixed", mixed))
    }
    passed = passages["mixed"]
    measured = time.perf_counter()
    audit = audit_demo(passed.edge, passed.cloud, train, test, settings.seed, cache / "audit", out / "audit")
    picture = out / PICTURE
    draw(picture, passed, train, settings.group_size, recovered(audit))
    return {
        "settings": settings.as_json(),
        "train_images": len(train),
        "test_images": len(test),
        "image_bytes": test.images[0].size,
        "baseline": figures(_accuracy(baseline, settings, test), passages["baseline"]),
        "mixing_aware": figures(_accuracy(mixed, settings, test), passed),
        "from_cache": {"baseline": baseline.from_cache, "mixing_aware": mixed.from_cache},
        "audit": audit.as_json(),
        "seconds": {
            "training": trained - start,
            "audit": time.perf_counter() - measured,
            "total": time.perf_counter() - start,
        },
        "picture": str(picture),
        "report": str(out / "audit" / HTML),
        "environment": environment(),
    }


def _accuracy(trained: Trained, settings: DemoSettings, test: Labelled) -> float:
    """The share of `test`, 0 to 1, whose identity the network finds without the mix."""
    task = IdentityTask(int(trained.options["num_classes"]))
    score = measure(trained.mixed(), test, task, settings.experiment(), settings.seed, mixed=False)
    return float(score["accuracy"])
