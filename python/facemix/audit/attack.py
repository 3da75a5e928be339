"""What every attack is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .outcome import Outcome
    from .scene import Scene

__all__ = ["Attack", "Progress"]

#: Takes the share that is done, 0 to 1.
Progress = Callable[[float], None]


class Attack(ABC):
    """An attack. A class of its own in a file of the same name in `facemix.audit.attacks`, listed in `registry.py`.

    Attributes:
        name: of the file, and on the command line.
        title: in reports: a question that the result answers.
        knows: what the attacker has besides the received rows, in a sentence.
        source: the paper, section, or equation.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    knows: ClassVar[str]
    source: ClassVar[str]

    def needs(self, scene: Scene) -> Outcome | None:
        """An outcome "does not apply", or "skipped", where `scene` lacks what the attack needs; else None."""
        return None

    @abstractmethod
    def run(self, scene: Scene, progress: Progress) -> Outcome:
        """Attack the requests of `scene`.

        All that is random comes from `scene.seed_of(self.name, ...)`.

        Args:
            scene: see there.
            progress: to be called now and then.
        """
