"""Made-up results of `facemix train`: the right form, and figures that nothing was trained for."""

from __future__ import annotations

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any

#: An accuracy of every network.
ALL = {
    "baseline": 0.93,
    "baseline_mixed": 0.21,
    "mixing_aware": 0.91,
    "mixing_aware_plain": 0.92,
    "linear_cloud": 0.62,
    "collapsed": 0.55,
}
PEOPLE, ATTRIBUTES = 3, ("eyeglasses", "wearing_hat")


def identity_score(accuracy: float, photographs: int = 100) -> dict[str, Any]:
    """A score of PEOPLE people of whom the first is taken for the second whenever somebody is not recognised."""
    wrong = round((1 - accuracy) * photographs)
    confusion = [[photographs if row == column else 0 for column in range(PEOPLE)] for row in range(PEOPLE)]
    confusion[0][:2] = [photographs - wrong, wrong]
    return {
        "accuracy": accuracy,
        "rounds": [accuracy],
        "balanced_accuracy": accuracy,
        "chance": 1 / PEOPLE,
        "confusion": confusion,
        "attributes": None,
    }


def attribute_score(accuracy: float) -> dict[str, Any]:
    """A score of ATTRIBUTES that a quarter of 40 faces has; of those, eight are found."""
    each = {
        name: {
            "accuracy": accuracy,
            "balanced_accuracy": accuracy - 0.02,
            "positive_share": 0.25,
            "known": 40,
            "confusion": [[27, 3], [2, 8]],
        }
        for name in ATTRIBUTES
    }
    score = identity_score(accuracy)
    return {**score, "balanced_accuracy": accuracy - 0.02, "chance": 0.75, "confusion": None, "attributes": each}


def collapse_values(accuracy: float, collapsed: float, *, multiply_adds: int = 5_000_000) -> dict[str, Any]:
    """Control 3, as `facemix.collapse.Collapse.as_json` gives it."""
    matched = accuracy - collapsed <= 0.01
    return {
        "images": 64,
        "decisions": 100,
        "group_size": 4,
        "shape": [3, 1000],
        "accuracy": accuracy,
        "collapsed_accuracy": collapsed,
        "agreement": 0.9,
        "self_agreement": 0.95,
        "relative_error": 0.3,
        "matrix_multiply_adds": 3000,
        "cloud_multiply_adds": 90_000_000,
        "edge_multiply_adds": 10_000_000,
        "collapsed_multiply_adds": multiply_adds,
        "bytes_saved": 4012,
        "low_rank": {"rank": 2, "multiply_adds": 2006, "accuracy": collapsed, "agreement": 0.89},
        "matched": matched,
        "verdict": "The matrix matches." if matched else "The matrix does not match.",
    }


def results(seed: int, accuracies: dict[str, float], *, group_size: int = 4, pre: int = 1) -> dict[str, Any]:
    """A `results.json`.

    Args:
        seed: shifts the accuracies by a hundredth each.
        accuracies: by network; "collapsed" makes a control 3.
    """
    shifted = {name: accuracy + 0.01 * seed for name, accuracy in accuracies.items()}
    collapsed = shifted.pop("collapsed", None)
    trained = ("baseline", "baseline_longer", "mixing_aware", "linear_cloud", "protected")
    stages = [name for name in trained if name in shifted]
    values = {
        "kind": "facemix-experiment-1",
        "name": "made-up",
        "seed": seed,
        "settings": {
            "name": "made-up",
            "data": {
                "source": "synthetic",
                "root": f"/photographs/{seed}",
                "size": [56, 46],
                "augment": {"scale": 0.1},
            },
            "model": {"name": "resnet18", "options": {}, "pre": pre, "post": 1},
            "mix": {"group_size": group_size, "max_coeff": None},
            "baseline": {"epochs": 20, "early_stopping": None},
            "mixed": {"epochs": 40, "early_stopping": None},
            "rounds": 5,
        },
        "environment": {"python": "3.11", "cpu": "a processor", "versions": {"torch": "2.13"}, "commit": "0123abcd"},
        "seconds": 12.5,
        "data": {
            "source": "synthetic",
            "task": "identity",
            "train": 280,
            "validation": 0,
            "test": 120,
            "labels": ["Ann", "Bob <b>", "Cy|d"],
            "evaluated_on": "test",
        },
        "scores": {name: identity_score(accuracy) for name, accuracy in shifted.items()},
        "curves": {
            stage: [
                {"epoch": n, "loss": 4 * math.exp(-n / 5), "validation_loss": None, "lr": 1e-3} for n in range(1, 21)
            ]
            for stage in stages
        },
        "pictures": {},
    }
    if "mixing_aware" in shifted:
        values["cost"] = {
            "edge_multiply_adds": 10_000_000 * pre,
            "cloud_multiply_adds": 100_000_000 - 10_000_000 * pre,
            "whole_multiply_adds": 100_000_000,
            "edge_share": 0.1 * pre,
            "edge_parameters": 50_000,
            "cloud_parameters": 11_160_000,
            "bytes_up": 3 << 20,
            "bytes_down": 2048,
        }
    if collapsed is not None:
        values["collapse"] = collapse_values(shifted["mixing_aware"], collapsed)
    return values


def save(folder: Path, values: dict[str, Any]) -> Path:
    """Write results into the folder of an experiment; returns the folder of the seed."""
    seed = folder / f"seed-{values['seed']}"
    seed.mkdir(parents=True, exist_ok=True)
    (seed / "results.json").write_text(json.dumps(values))
    return seed


def png(path: Path, width: int = 2, height: int = 2) -> bytes:
    """Write a grey picture; returns its bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes(width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + chunks
    path.write_bytes(data)
    return data
