"""The progress of an audit on a terminal."""

from __future__ import annotations

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from facemix.console import Console
from facemix.report.spread import percent

from .attack import Attack
from .outcome import Outcome
from .run import Watch

__all__ = ["Terminal", "told"]


class Terminal(Watch):
    """A line on the standard error for each attack that is over, and, on a terminal, a bar for the one that is not."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._bars.add_task("", visible=False)

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._bars.stop()

    def started(self, attack: type[Attack]) -> None:
        """See `Watch`."""
        self._bars.reset(self._bar, description=attack.name, total=1.0, visible=True)

    def progress(self, attack: type[Attack], share: float) -> None:
        """See `Watch`."""
        self._bars.update(self._bar, completed=share)

    def ended(self, attack: type[Attack], outcome: Outcome) -> None:
        """See `Watch`."""
        self._bars.update(self._bar, visible=False)
        self._bars.console.print(f"facemix audit: {attack.name}: {told(outcome)} ({outcome.seconds:.1f} s)")


def told(outcome: Outcome) -> str:
    """In a few words: what was recovered, or why that is not known."""
    return outcome.status if outcome.recovered is None else f"recovered {percent(outcome.recovered)}"
