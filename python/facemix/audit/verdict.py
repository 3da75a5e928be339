"""What attacks show, in plain words. They are never those of a clean bill where one succeeded or gave no answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from facemix.report.spread import percent

from .outcome import Outcome

__all__ = ["FAINT", "MOST", "Answer", "Level", "Verdict", "answer_of", "exit_status", "level", "sentence", "verdict"]

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
        answer: that of the attack which went furthest; "unknown" where none got anything that counts, and not all gave
            an answer.
        headline: that, in a sentence or two.
        reasons: what it follows from, a sentence or two each.
        recovered: of the attack which went furthest, see `Outcome.recovered`; None where none is done.
        worst: its name.
        unknown: names of those that gave no answer.
    """

    answer: Answer
    headline: str
    reasons: tuple[str, ...]
    recovered: float | None
    worst: str | None
    unknown: tuple[str, ...]


def level(outcome: Outcome) -> Level:
    """How far an attack got."""
    if outcome.status == "does not apply":
        return "does not apply"
    return answer_of(outcome.recovered if outcome.status == "done" else None, False)


def answer_of(recovered: float | None, unknown: bool) -> Answer:
    """What a share, None where nothing is done, and whether some attacks gave no answer come to."""
    if recovered is not None and recovered >= FAINT:
        return "recovered" if recovered >= MOST else "partly"
    return "unknown" if unknown or recovered is None else "withstood"


def verdict(outcomes: Mapping[str, Outcome]) -> Verdict:
    """Weigh the outcomes of attacks, by name."""
    levels = {name: level(outcome) for name, outcome in outcomes.items()}
    done = {n: o.recovered for n, o in outcomes.items() if o.status == "done" and o.recovered is not None}
    order = sorted(done, key=lambda name: (-round(done[name], 2), name != FIRST))
    unknown = tuple(name for name, found in levels.items() if found == "unknown")
    worst = order[0] if order else None
    answer = answer_of(None if worst is None else done[worst], bool(unknown))
    if worst is not None and answer == "recovered":
        headline = f"Not hidden. {outcomes[worst].says}"
    elif worst is not None and answer == "partly":
        headline = f"Hidden in part only. {outcomes[worst].says}"
    elif unknown:
        headline = f"Unknown: {len(unknown)} of {len(outcomes)} attacks gave no answer, and the others got nothing."
    elif worst is None:
        headline = "Unknown: there was nothing that an attack applies to."
    else:
        most = percent(max(done.values()))
        headline = f"None of these {len(done)} attacks recovered more than {most}. That is no proof: others may."
    return Verdict(
        answer,
        headline,
        tuple(filter(None, _reasons(outcomes, levels, order, worst if answer in ("recovered", "partly") else None))),
        max(done.values(), default=None),
        worst,
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
    outcomes: Mapping[str, Outcome], levels: Mapping[str, Level], order: list[str], told: str | None
) -> Iterable[str]:
    """All that the headline does not tell, the worst first."""
    for name in order:
        if levels[name] in ("recovered", "partly") and name != told:
            yield f"{_words(name).capitalize()}: {outcomes[name].says}"
    for name, found in levels.items():
        if found == "unknown":
            outcome = outcomes[name]
            yield f"Unknown, which is not safe: {_words(name)}, {outcome.status}. {sentence(outcome.reason)}"
    faint = [
        f"{_words(name)} ({percent(outcomes[name].recovered or 0.0)})" for name in order if levels[name] == "withstood"
    ]
    if faint:
        yield f"Got nothing that counts: {', '.join(faint)}."
    if unfit := [_words(name) for name, found in levels.items() if found == "does not apply"]:
        yield f"Does not apply: {', '.join(unfit)}."


def sentence(text: str) -> str:
    """With a capital, and a full stop."""
    return text[:1].upper() + text[1:] + "." * (not text.endswith((".", "!", "?")))


def _words(name: str) -> str:
    return name.replace("_", " ")
