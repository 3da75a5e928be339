"""Outcomes of finished attacks on disk, so that an audit goes on where it was interrupted."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import facemix
import facemix_ops as fo
from facemix.pictures import Line
from facemix.storage import file_digest, load_tensors, save_tensors

from .attack import Attack
from .outcome import Outcome, Roc, Variant
from .scene import Scene

__all__ = ["Store", "outcome_json"]

CODE = ("*.py", "attacks/*.py")  # that outcomes follow from: some attacks run others


class Store:
    """A folder with a file for each attack. A file counts only for what it was made of: the same edge, cloud and
    photographs, the same seed and effort, the same code.

    Args:
        folder: of the files; it need not exist.
        scene: what is attacked.
        edge: JSON values that tell its edge and its cloud from all others.
    """

    def __init__(self, folder: Path, scene: Scene, edge: Mapping[str, Any]) -> None:
        self._folder = folder
        self._decides = {
            "edge": dict(edge),
            "photographs": [faces.digest() for faces in (scene.victims, scene.attacker, scene.gallery)],
            "seed": scene.seed,
            "effort": scene.effort,
            "device": scene.device.type,
            "versions": [facemix.__version__, fo.__version__, torch.__version__],
            "code": [file_digest(path) for place in CODE for path in sorted(Path(__file__).parent.glob(place))],
        }

    def find(self, attack: type[Attack]) -> Outcome | None:
        """What was kept of `attack`; None where nothing was, or of something else."""
        try:
            tensors, config = load_tensors(self._path(attack))
        except (OSError, ValueError):
            return None
        return _outcome(config["outcome"], tensors) if config.get("key") == self._key(attack) else None

    def keep(self, attack: type[Attack], outcome: Outcome) -> None:
        """Keep `outcome`, whole or not at all, in place of an earlier one.

        Raises:
            OSError: it cannot be written.
        """
        lines = [
            {
                "caption": line.caption,
                "pictures": len(line.pictures),
                "limit": None if line.limit is None else float(line.limit),
                "titles": None if line.titles is None else list(line.titles),
                "right": None if line.right is None else list(map(bool, line.right)),
            }
            for line in outcome.pictures
        ]
        tensors = {
            f"{row}.{column}": torch.tensor(np.asarray(picture))  # a copy: files hold no memory twice
            for row, line in enumerate(outcome.pictures)
            for column, picture in enumerate(line.pictures)
        }
        values = {**outcome_json(outcome), "pictures": lines}
        save_tensors(self._path(attack), tensors, {"key": self._key(attack), "outcome": values})

    def _path(self, attack: type[Attack]) -> Path:
        return self._folder / f"{attack.name}.safetensors"

    def _key(self, attack: type[Attack]) -> str:
        decides = {**self._decides, "attack": [attack.__qualname__, file_digest(Path(inspect.getfile(attack)))]}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome without its pictures, as JSON values."""
    values = asdict(replace(outcome, pictures=()))
    del values["pictures"]
    plain: dict[str, Any] = json.loads(json.dumps(values, default=float))  # figures may be NumPy's
    return plain


def _outcome(values: dict[str, Any], tensors: Mapping[str, Tensor]) -> Outcome:
    """What `Store.keep` wrote."""
    interval, variants, curves = values["interval"], values["variants"], values["curves"]
    lines = [
        Line(**{**line, "pictures": [tensors[f"{row}.{column}"].numpy() for column in range(line["pictures"])]})
        for row, line in enumerate(values["pictures"])
    ]
    return Outcome(**{
        **values,
        "interval": None if interval is None else tuple(interval),
        "variants": tuple(Variant(**variant) for variant in variants),
        "curves": tuple(
            Roc(curve["name"], tuple(curve["false_positive"]), tuple(curve["true_positive"]), curve["auc"])
            for curve in curves
        ),
        "pictures": tuple(lines),
    })  # fmt: skip
