"""Numbers of things, in words."""

from __future__ import annotations

__all__ = ["plural"]


def plural(number: int, noun: str) -> str:
    """Return "1 epoch", or "2 epochs"; the noun is given for one, and takes an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
