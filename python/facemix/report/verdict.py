"""Whether the mix is worth what it costs, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .collapse import collapses, edge_with_matrix
from .results import Runs
from .spread import Spread, count, percent, points

__all__ = ["Verdict", "verdict"]

#: A loss of accuracy, against the baseline, that the mix may cost.
ACCEPTABLE = 0.03
#: What the cloud's non-linear layers must add to be worth anything.
WORTH = 0.01

PRIVACY = (
    "How much of the photographs a cloud recovers from what it receives is not measured here: no facemix audit was "
    "run. A mix is no cipher: published attacks (independent component analysis) recover images from such mixtures."
)


@dataclass(frozen=True)
class Verdict:
    """What a report begins with.

    Attributes:
        answer: is the mix paid for; "open" where no network was trained for it, or a control is missing.
        headline: that, in a sentence.
        reasons: the comparisons that it follows from, a sentence or two each.
    """

    answer: Literal["yes", "no", "open"]
    headline: str
    reasons: tuple[str, ...]


def verdict(runs: Runs) -> Verdict:
    """Compare the mixing-aware network with the baseline and with the controls."""
    if "mixing_aware" not in runs.networks:
        reason = f"The baseline is right in {runs.accuracy('baseline').percent()} without the mix."
        return Verdict("open", "No network was trained for the mix.", (reason,))
    loss = (runs.accuracy("baseline") - runs.accuracy("mixing_aware")).mean
    matrices, linear = collapses(runs), "linear_cloud" in runs.networks
    edge = runs.first["cost"]["edge_multiply_adds"]
    reasons = (_loss(runs), _untrained(runs), _linear(runs), _collapse(runs), _edge(runs), _privacy(runs))
    answer: Literal["yes", "no", "open"] = "no"
    if matrices and all(m["matched"] and edge_with_matrix(m) <= edge for m in matrices):
        headline = "No: one matrix on the edge does what the cloud does. It costs the edge less, and nothing leaves it."
    elif linear and _gain(runs).mean < WORTH:
        headline = "No: a cloud without any non-linearity does as well, and such a cloud is one matrix."
    elif loss > ACCEPTABLE:
        headline = f"No: the mix costs {points(loss)} of accuracy, more than the {points(ACCEPTABLE)} that it may."
    elif matrices and linear:
        answer = "yes"
        headline = f"Yes: the mix costs {points(max(loss, 0.0))} of accuracy, and no control does as well for less."
    else:
        answer = "open"
        headline = (
            f"The mix costs {points(max(loss, 0.0))} of accuracy; whether it is needed is open: a control is missing."
        )
    return Verdict(answer, headline, tuple(filter(None, reasons)))


def _gain(runs: Runs) -> Spread:
    """What the cloud's non-linear layers bring."""
    return runs.accuracy("mixing_aware") - runs.accuracy("linear_cloud")


def _loss(runs: Runs) -> str:
    size = runs.first.settings["mix"]["group_size"]
    mixed, baseline = runs.accuracy("mixing_aware"), runs.accuracy("baseline")
    difference = (baseline - mixed).mean
    change = f"{points(difference)} lost" if difference >= 0 else f"{points(-difference)} won"
    return (
        f"Through the mix, in groups of {size}, the mixing-aware network is right in {mixed.percent()}; the baseline, "
        f"without the mix, in {baseline.percent()}: {change}."
    )


def _untrained(runs: Runs) -> str:
    if "baseline_mixed" not in runs.networks:
        return ""
    chance = percent(runs.score("baseline", "chance").mean)
    return (
        f"Without mixing-aware training (control 1) the baseline is right in "
        f"{runs.accuracy('baseline_mixed').percent()} through the same mix; chance is {chance}."
    )


def _linear(runs: Runs) -> str:
    if "linear_cloud" not in runs.networks:
        return ""
    gain = _gain(runs)
    start = (
        f"With no non-linearity in the cloud, trained the same way (control 2), a network is right in "
        f"{runs.accuracy('linear_cloud').percent()}"
    )
    if gain.mean < WORTH:
        return f"{start}: the cloud's non-linear layers bring nothing ({points(gain.mean)})."
    # With one seed there is no spread to compare with.
    doubt = "" if gain.std is None or gain.mean > gain.std else ", which is within the spread of the seeds"
    return f"{start}: the cloud's non-linear layers bring {points(gain.mean)}{doubt}."


def _collapse(runs: Runs) -> str:
    verdicts = [values["verdict"] for values in collapses(runs)]
    if not verdicts:
        return ""
    if len(set(verdicts)) == 1:
        return f"Collapse (control 3): {verdicts[0]}"
    each = " ".join(f"Seed {s['seed']}: {v}" for s, v in zip(runs.seeds, verdicts, strict=True))
    return f"Collapse (control 3). {each}"


def _edge(runs: Runs) -> str:
    cost = runs.first["cost"]
    return (
        f"The edge computes {count(cost['edge_multiply_adds'])} multiply-adds an image, "
        f"{percent(cost['edge_share'])} of the whole baseline's."
    )


def _privacy(runs: Runs) -> str:
    recovered = [seed.recovered for seed in runs.seeds if seed.recovered is not None]
    if not recovered:
        return PRIVACY
    return f"facemix audit recovered {percent(sum(recovered) / len(recovered))} of what the cloud received mixed."
