"""What to think of it, and what went wrong, for people who look at a page."""

from __future__ import annotations

from facemix.edge import (
    CloudError,
    CloudMismatch,
    CloudOverloaded,
    CloudTimeout,
    CloudUnreachable,
)

__all__ = ["HONESTY", "in_words"]

HONESTY = (
    "What this does not promise: the mixtures hide the photographs from a glance, not from an attacker. Published "
    "attacks (independent component analysis) recover images from such mixtures: facemix audit runs them on a network "
    "of your own."
)

WORDS: dict[type[CloudError], str] = {
    CloudUnreachable: "The cloud is gone: nobody answers at its address.",
    CloudTimeout: "The cloud is there, but did not answer in time.",
    CloudOverloaded: "The cloud has too much to do at the moment.",
    CloudMismatch: "The cloud does not serve the middle of this network.",
}
OTHERWISE = "The cloud gave no answer that the edge can use."


def in_words(error: CloudError) -> str:
    """One sentence about `error`."""
    return next((words for kind, words in WORDS.items() if isinstance(error, kind)), OTHERWISE)
