"""Carries out attacks, one after another."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import replace

import torch

from .attack import Attack
from .failure import PartFailed, failed
from .outcome import Outcome
from .registry import ATTACKS
from .scene import Scene
from .store import Store

__all__ = ["Watch", "run_audit"]


class Watch:
    """Is told how an audit goes on. This one does nothing with it."""

    def started(self, attack: type[Attack]) -> None:
        """`attack` begins."""

    def progress(self, attack: type[Attack], share: float) -> None:
        """`share`, 0 to 1, of `attack` is done."""

    def ended(self, attack: type[Attack], outcome: Outcome) -> None:
        """`attack` is over."""


def run_audit(
    scene: Scene,
    attacks: Iterable[type[Attack]] = ATTACKS,
    *,
    only: Collection[str] | None = None,
    store: Store | None = None,
    watch: Watch | None = None,
) -> dict[str, Outcome]:
    """Attack `scene`.

    An attack that raises an error is "not converged", and those after it go on, see `facemix.audit.failure`.

    Args:
        scene: see there.
        attacks: in the order of the result.
        only: names of attacks; the others are "skipped", unless `store` has them. Default: all.
        store: takes what is finished, and gives what it has of an earlier run.
        watch: is told of progress.

    Returns:
        An outcome of each attack, by name.
    """
    watch = watch or Watch()
    outcomes = {}
    for attack in attacks:
        known = store.find(attack) if store is not None else None
        if known is None and only is not None and attack.name not in only:
            known = Outcome("skipped", "It was not asked for.")
        outcome = known or _attacked(attack, scene, store, watch)
        outcomes[attack.name] = outcome
        watch.ended(attack, outcome)
    return outcomes


def _attacked(attack: type[Attack], scene: Scene, store: Store | None, watch: Watch) -> Outcome:
    watch.started(attack)
    start = time.perf_counter()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(scene.seed_of(attack.name))  # an attack that forgets its own draws the same all the same
            one = attack()
            unfit = one.needs(scene)
            outcome = unfit or _checked(one.run(scene, lambda share: watch.progress(attack, share)))
    except PartFailed as part:
        return _checked(part.outcome)
    except Exception as error:
        return failed(attack, error)
    outcome = replace(outcome, seconds=time.perf_counter() - start)
    if store is not None and unfit is None:
        store.keep(attack, outcome)
    return outcome


def _checked(outcome: Outcome) -> Outcome:
    """An attack that does no better where nothing is hidden has shown nothing of what is, whatever it got."""
    floor, ceiling = outcome.floor, outcome.ceiling
    if outcome.status != "done" or floor is None or ceiling is None or ceiling > floor:
        return outcome
    reason = f"It does no better where nothing is hidden ({ceiling:.3g}) than by chance ({floor:.3g})."
    return replace(outcome, status="not converged", reason=reason)
