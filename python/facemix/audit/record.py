"""All that a report of an audit is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .attack import Attack
from .outcome import Outcome
from .scene import Scene
from .store import outcome_json
from .verdict import Verdict, levels, verdict

__all__ = ["KIND", "Audit", "scene_json"]

KIND = "facemix-audit-1"


@dataclass(frozen=True)
class Audit:
    """An audit that is over.

    Attributes:
        title: what was attacked.
        attacks: in the order of the report.
        outcomes: of each of them, by name.
        settings: JSON values that decide the outcomes.
        environment: see `facemix.environment`.
    """

    title: str
    attacks: tuple[type[Attack], ...]
    outcomes: Mapping[str, Outcome]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]

    @cached_property
    def verdict(self) -> Verdict:
        """What the outcomes show."""
        return verdict(self.outcomes)

    @property
    def seconds(self) -> float:
        """What the attacks took, whenever they ran."""
        return sum(outcome.seconds for outcome in self.outcomes.values())

    def as_json(self) -> dict[str, Any]:
        """Everything but the pictures, as JSON values."""
        found, far = self.verdict, levels(self.outcomes)
        return {
            "kind": KIND,
            "title": self.title,
            **self.privacy(),
            "verdict": {"headline": found.headline, "reasons": list(found.reasons)},
            "attacks": [
                {
                    "name": attack.name,
                    "title": attack.title,
                    "knows": attack.knows,
                    "source": attack.source,
                    "level": far[attack.name],
                    "recovered": self.outcomes[attack.name].recovered,
                    **outcome_json(self.outcomes[attack.name]),
                }
                for attack in self.attacks
            ],
            "settings": dict(self.settings),
            "environment": dict(self.environment),
            "seconds": self.seconds,
        }

    def privacy(self) -> dict[str, Any]:
        """What stands in an experiment's results.json: how far the worst attack got, and which gave an answer."""
        found = self.verdict
        return {
            "answer": found.answer,
            "recovered": found.recovered,
            "worst": found.worst,
            "unknown": list(found.unknown),
            "answered": [name for name in self.outcomes if name not in found.unknown],
        }


def scene_json(scene: Scene) -> dict[str, Any]:
    """Who was attacked, and how, as JSON values."""
    return {
        "effort": scene.effort,
        "seed": scene.seed,
        "group_size": scene.edge.group_size,
        "victims": len(scene.victims),
        "photographs of the attacker": len(scene.attacker),
        "gallery": len(scene.gallery),
        "answers of the cloud": scene.cloud is not None,
    }
