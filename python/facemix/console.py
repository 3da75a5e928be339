"""rich's console, as every command prints with it."""

from __future__ import annotations

from typing import Any

import rich.console

__all__ = ["Console"]


class Console(rich.console.Console):
    """Highlights nothing, and leaves a closed pipe to `facemix.cli`, where rich would end the program with status 1."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Let the error go on that rich has caught."""
        raise
