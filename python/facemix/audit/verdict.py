"""What attacks show, in plain words. They are never those of a clean bill where one succeeded or gave no answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from facemix.report.spread import percent

from .outcome import Outcome

__all__ = ["FAINT", "MOST", "Answer", "Level", "Verdict", "exit_status", "level", "levels", "sentence", "verdict"]

#: From this share on, an attack succeeded.
MOST = 0.5
#: Below this one, it got nothing that counts.
FAINT = 0.05
#: Of attacks that got equally far, to a hundredth, this one speaks: it begins with nothing and ends with faces.
FIRST = "end_to_end"

Answer = Literal["recovered", "partly", "unknown", "withstood"]
Level = Literal[Answer, "does not apply"]

EXIT_RECOVERED, EXIT_UNKNOWN = 3, 4


@dataclass(frozen=True)
class Verdict:
    """What a report begins with.

    Attributes:
        answer: that of the attack which went furthest, of those that got anything that counts; "unknown" where none
            did, and not all gave an answer.
        headline: that, in a sentence or two.
        reasons: what it follows from, a sentence or two each.
        recovered: of the attack with the highest figure, chance or not, see `Outcome.recovered`; None where none is
            done.
        worst: its name.
        unknown: names of those that gave no answer.
    """

    answer: Answer
    headline: str
    reasons: tuple[str, ...]
    recovered: float | None
    worst: str | None
    unknown: tuple[str, ...]


def levels(outcomes: Mapping[str, Outcome]) -> dict[str, Level]:
    """How far each attack got, by name."""
    among = sum(outcome.status == "done" for outcome in outcomes.values())
    return {name: level(outcome, among) for name, outcome in outcomes.items()}


def level(outcome: Outcome, among: int = 1) -> Level:
    """How far an attack got. What is less than MOST counts only where it is beyond chance (`Outcome.beyond_chance`), or
    no interval tells.

    Args:
        among: how many attacks gave a figure: of ten on noise, one is lucky.
    """
    if outcome.status == "does not apply":
        return "does not apply"
    share = outcome.recovered
    if share is None:
        return "unknown"
    if share >= MOST:
        return "recovered"
    return "withstood" if share < FAINT or outcome.beyond_chance(among) is False else "partly"


def verdict(outcomes: Mapping[str, Outcome]) -> Verdict:
    """Weigh the outcomes of attacks, by name."""
    far = levels(outcomes)
    done = {n: o.recovered for n, o in outcomes.items() if o.recovered is not None}
    order = sorted(done, key=lambda name: (-round(done[name], 2), name != FIRST))
    unknown = tuple(name for name, one in far.items() if one == "unknown")
    speaks = next((name for name in order if far[name] in ("recovered", "partly")), None)
    answer: Answer = "withstood" if order and not unknown else "unknown"
    if speaks is not None:
        answer = "recovered" if far[speaks] == "recovered" else "partly"
        headline = f"{'Not hidden' if answer == 'recovered' else 'Hidden in part only'}. {outcomes[speaks].says}"
    elif unknown:
        silent = f"{len(unknown)} of {len(outcomes)} attacks gave no answer"
        headline = f"Unknown: {silent}, and the others got nothing that counts."
    elif not order:
        headline = "Unknown: there was nothing that an attack applies to."
    else:
        most = percent(max(done.values()))
        told = f"None of these {len(done)} attacks recovered more" if len(done) > 1 else "This attack recovered no more"
        headline = f"{told} than {most}. That is no proof: others may."
    return Verdict(
        answer,
        headline,
        tuple(filter(None, _reasons(outcomes, far, order, speaks))),
        max(done.values(), default=None),
        order[0] if order else None,
        unknown,
    )


def exit_status(found: Verdict, fail_above: float) -> int:
    """For scripts: 3 where an attack recovered more than the share `fail_above`; 4 where none did, and one gave no
    answer or none is done; else 0.
    """
    if found.recovered is not None and found.recovered > fail_above:
        return EXIT_RECOVERED
    return EXIT_UNKNOWN if found.unknown or found.recovered is None else 0


def _reasons(
    outcomes: Mapping[str, Outcome], far: Mapping[str, Level], order: list[str], told: str | None
) -> Iterable[str]:
    """All that the headline does not tell, the worst first."""
    for name in order:
        if far[name] in ("recovered", "partly") and name != told:
            yield f"{_words(name).capitalize()}: {outcomes[name].says}"
    for name, found in far.items():
        if found == "unknown":
            outcome = outcomes[name]
            yield f"Unknown, which is not safe: {_words(name)}, {outcome.status}. {sentence(outcome.reason)}"
    faint = [f"{_words(name)} ({_faint(outcomes[name])})" for name in order if far[name] == "withstood"]
    if faint:
        yield f"Got nothing that counts: {', '.join(faint)}."
    if unfit := [_words(name) for name, found in far.items() if found == "does not apply"]:
        yield f"Does not apply: {', '.join(unfit)}."


def _faint(outcome: Outcome) -> str:
    """What an attack recovered that got nothing that counts."""
    share = outcome.recovered or 0.0
    return percent(share) + ", not significant" * (share >= FAINT)


def sentence(text: str) -> str:
    """With a capital, and a full stop."""
    return text[:1].upper() + text[1:] + "." * (not text.endswith((".", "!", "?")))


def _words(name: str) -> str:
    return name.replace("_", " ")
