"""Reads what `facemix train` writes: a `results.json` for each seed of an experiment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from facemix.plural import plural
from facemix.training.deciding import deciding, difference

from .spread import Spread
from .table import NETWORKS

__all__ = ["KIND", "RESULTS", "Result", "Runs", "read_result", "read_runs", "seed_hint"]

KIND = "facemix-experiment-1"
RESULTS = "results.json"
NEEDED = ("name", "seed", "settings", "environment", "seconds", "data", "scores", "curves")
SECTIONS = ("settings", "environment", "data", "scores", "curves")  # of these, those that hold more


@dataclass(frozen=True)
class Result:
    """One seed of an experiment.

    Attributes:
        folder: of its `results.json`, and of the pictures.
        values: what is in there.
    """

    folder: Path
    values: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that decide figures."""
        return deciding(self.values["settings"])

    @property
    def accuracies(self) -> dict[str, float]:
        """By network; "collapsed" is the mixing-aware one with a matrix for its cloud."""
        accuracies = {name: score["accuracy"] for name, score in self.values["scores"].items()}
        collapse = self.values.get("collapse")
        return {**accuracies, "collapsed": collapse["collapsed_accuracy"]} if collapse else accuracies

    @property
    def recovered(self) -> float | None:
        """What an audit recovered, as a share: at least that. None where there was no audit, or where it cannot tell:
        its attacks recovered nothing that counts, and not all of them gave an answer.
        """
        privacy = self.values.get("privacy")
        return privacy["recovered"] if privacy and privacy["answer"] != "unknown" else None


@dataclass(frozen=True)
class Runs:
    """The seeds of an experiment, at least one, in order."""

    seeds: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """That of the lowest seed; what does not depend on the seed is read from it."""
        return self.seeds[0]

    @property
    def name(self) -> str:
        """The experiment's."""
        return str(self.first["name"])

    @property
    def protected(self) -> bool:
        """Whether another protection is in the place of the mix."""
        return self._protection["name"] != "mix"

    @property
    def method(self) -> str:
        """What keeps the images from the cloud, as tables call it."""
        protection = self._protection
        words = {
            "mix": f"FaceMix, N_pre = {self.deployed['pre']}",
            "plain": "all in the cloud",
            "noise": "noise, sigma {sigma}",
            "blur": "blur to {size} x {size}",
            "anonymizer": "face anonymizer, width {width}",
        }
        values = {name: f"{value:g}" for name, value in protection.items() if isinstance(value, int | float)}
        return words[protection["name"]].format(**values)

    @property
    def variant(self) -> str:
        """The name, and what a sweep varies."""
        size, pre = self.first["settings"]["mix"]["group_size"], self.deployed["pre"]
        if self.protected:
            return f"{self.name}, {self.method}"
        return f"{self.name}, " + (f"N_pre = {pre}, S = {size}" if size > 1 else "no mix")

    @property
    def deployed(self) -> dict[str, Any]:
        """The settings of the network that is cut: of what mixes, where that is another than the baseline."""
        settings = self.first["settings"]
        mixing = None if self.protected else settings.get("mixed_model")
        found: dict[str, Any] = mixing or settings["model"]
        return found

    @property
    def _protection(self) -> dict[str, Any]:
        found: dict[str, Any] = self.first["settings"].get("protection", {"name": "mix"})
        return found

    @cached_property
    def networks(self) -> list[str]:
        """What every seed has an accuracy of, in the order of tables."""
        return [name for name in NETWORKS if all(name in seed.accuracies for seed in self.seeds)]

    @property
    def rival(self) -> str:
        """What a loss is taken against: the longer baseline; where it was not trained, the baseline."""
        return "baseline_longer" if "baseline_longer" in self.networks else "baseline"

    def epochs(self, training: str) -> str:
        """How long "baseline" was trained for, or "mixed" went on, in words: at most that, with early stopping."""
        fit = self.first.settings[training]
        limit = "" if fit.get("early_stopping") is None else "at most "
        return f"{limit}{plural(fit['epochs'], 'epoch')}"

    def spread(self, figure: Callable[[Result], float]) -> Spread:
        """A figure over the seeds."""
        return Spread.of(map(figure, self.seeds))

    def accuracy(self, network: str) -> Spread:
        """Of a network in `networks`."""
        return self.spread(lambda seed: seed.accuracies[network])

    def score(self, network: str, figure: str) -> Spread:
        """A figure of a network's score, such as "balanced_accuracy"."""
        return self.spread(lambda seed: seed["scores"][network][figure])


def read_result(path: Path) -> Result:
    """Read one `results.json`.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"report: {path} must be JSON, got {error}") from error
    kind = values.get("kind") if isinstance(values, dict) else type(values).__name__
    if kind != KIND:
        raise ValueError(f"report: {path} must be of kind {KIND!r}, got {kind!r}")
    missing = [name for name in NEEDED if name not in values]
    if missing:
        raise ValueError(f"report: {path} must have {', '.join(NEEDED)}, got none of {', '.join(missing)}")
    if odd := [name for name in SECTIONS if not isinstance(values[name], dict)]:
        raise ValueError(f"report: {path} must have {odd[0]} by name, got {type(values[odd[0]]).__name__}")
    if values["scores"].keys() & {"mixing_aware", "protected"} and "cost" not in values:
        raise ValueError(f"report: {path} must have the cost of the network that mixes, got none")
    if "baseline" not in values["scores"]:
        raise ValueError(
            f"report: {path} must have scores of the baseline, got {', '.join(values['scores']) or 'none'}"
        )
    return Result(path.parent, values)


def seed_hint(folder: Path) -> str:
    """What to add to an error where `folder` is not that of a seed: that of one within it, if there is one."""
    seeds = sorted(folder.glob(f"seed-*/{RESULTS}"))
    return f"; did you mean {seeds[0].parent}?" if seeds else ""


def read_runs(folder: str | os.PathLike[str]) -> Runs:
    """Read the seeds of an experiment: `seed-*/results.json` in `folder`.

    Raises:
        ValueError: none is there, or they are of different settings.
    """
    folder = Path(folder)
    paths = sorted(folder.glob(f"seed-*/{RESULTS}"))
    if not paths:
        hint = f"; did you mean {folder.parent}?" if (folder / RESULTS).is_file() else ""
        raise ValueError(f"report: DIR must hold seed-*/{RESULTS} of a finished `facemix train`, got {folder}{hint}")
    seeds = sorted(map(read_result, paths), key=lambda result: result["seed"])
    for seed in seeds[1:]:
        if different := difference(seeds[0].settings, seed.settings):
            raise ValueError(
                f"report: seeds in one folder must have the same settings, got {seeds[0].folder} and {seed.folder}, "
                f"whose {different}"
            )
    return Runs(tuple(seeds))
