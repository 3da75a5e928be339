"""Whether the mix is worth what it costs, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facemix.collapse.verdict import AFFORDABLE

from .collapse import collapses, edge_with_matrix
from .results import Runs
from .spread import Spread, count, percent, points

__all__ = ["Verdict", "verdict"]

#: A loss of accuracy, against the longer baseline, that the mix may cost.
ACCEPTABLE = 0.03
#: What the cloud's non-linear layers must add to be worth anything.
WORTH = 0.01

UNMEASURED = (
    "How much of the photographs a cloud recovers from what it receives is not measured here: no facemix audit was run."
)
NO_CIPHER = "A mix is no cipher: published attacks (independent component analysis) recover images from such mixtures."
UNKNOWN = (
    "How much of the photographs a cloud recovers from what it receives is unknown: not all attacks of facemix audit "
    "gave an answer, and the others recovered nothing that counts."
)


@dataclass(frozen=True)
class Verdict:
    """What a report begins with.

    Attributes:
        answer: does mixing pay off; "open" where no network was trained for it, or a control is missing.
        headline: that, in a sentence.
        reasons: the comparisons that it follows from, a sentence or two each.
    """

    answer: Literal["yes", "no", "open"]
    headline: str
    reasons: tuple[str, ...]


def verdict(runs: Runs) -> Verdict:
    """Compare the mixing-aware network with the baseline and with the controls."""
    if runs.protected:
        headline = f"Nothing is mixed: each image goes to the cloud by itself ({runs.method})."
        return Verdict("open", headline, (_behind(runs), _edge(runs), _privacy(runs)))
    if "mixing_aware" not in runs.networks:
        reason = f"The baseline is right in {runs.accuracy('baseline').percent()} without the mix."
        return Verdict("open", "No network was trained for the mix.", (reason,))
    loss = _lost(runs)
    matrices, linear = collapses(runs), "linear_cloud" in runs.networks
    edge = runs.first["cost"]["edge_multiply_adds"]
    reasons = (_loss(runs), _untrained(runs), _linear(runs), _collapse(runs), _edge(runs), _privacy(runs))
    answer: Literal["yes", "no", "open"] = "no"
    with_matrix = max(map(edge_with_matrix, matrices), default=0)
    if matrices and all(m["matched"] for m in matrices) and with_matrix <= AFFORDABLE * edge:
        headline = (
            f"No: one matrix on the edge does what the cloud does, for {count(with_matrix)} multiply-adds there "
            f"instead of {count(edge)}, and nothing leaves it."
        )
    elif linear and not _worth(_gain(runs)):
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


def _behind(runs: Runs) -> str:
    plain = runs.first.settings["protection"]["name"] == "plain"  # and the baseline had as many epochs
    baseline = runs.accuracy("baseline").percent() if plain else _baseline(runs)
    return (
        f"The network that trained behind the protection is right in {runs.accuracy('protected').percent()}, the "
        f"baseline, on the images themselves, in {baseline}."
    )


def _baseline(runs: Runs) -> str:
    """In what share the baseline is right, and after how many epochs."""
    first, more = runs.epochs("baseline"), runs.epochs("mixed")
    start = f"{runs.accuracy('baseline').percent()} after {first}"
    if runs.rival == "baseline":
        return f"{start}, fewer than the other, which went on for {more} more"
    stopped = runs.first.settings["mixed"].get("early_stopping") is not None  # each by its own loss
    other = "within the same limit as the other" if stopped else "as many as the other had"
    return f"{start} and in {runs.accuracy(runs.rival).percent()} after {more} more, {other}"


def _lost(runs: Runs) -> float:
    """What the mix costs in accuracy; negative where it gains."""
    return (runs.accuracy(runs.rival) - runs.accuracy("mixing_aware")).mean


def _gain(runs: Runs) -> Spread:
    """What the cloud's non-linear layers bring."""
    return runs.accuracy("mixing_aware") - runs.accuracy("linear_cloud")


def _worth(gain: Spread) -> bool:
    """Whether a gain is large enough, and not within the spread of the seeds, of which one alone has none."""
    return gain.mean >= WORTH and (gain.std is None or gain.mean > gain.std)


def _loss(runs: Runs) -> str:
    size = runs.first.settings["mix"]["group_size"]
    difference = _lost(runs)
    change = f"{points(difference)} lost" if difference >= 0 else f"{points(-difference)} won"
    return (
        f"Through the mix, in groups of {size}, the mixing-aware network is right in "
        f"{runs.accuracy('mixing_aware').percent()}; the baseline, without the mix, in {_baseline(runs)}: {change}."
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
    if _worth(gain):
        return f"{start}: the cloud's non-linear layers bring {points(gain.mean)}."
    spread = "" if gain.std is None else f" ± {100 * gain.std:.1f}"
    return f"{start}: the cloud's non-linear layers bring nothing that counts ({100 * gain.mean:.1f}{spread} points)."


def _collapse(runs: Runs) -> str:
    matrices = collapses(runs)
    if not matrices:
        return ""
    first = f"Collapse (control 3), seed {runs.first['seed']}: {matrices[0]['verdict']}"
    if len(matrices) == 1:
        return first
    matched = sum(values["matched"] for values in matrices)
    return (
        f"{first} Over all seeds {runs.accuracy('collapsed').percent()} are right with the matrix; it matches in "
        f"{matched} of {len(matrices)}."
    )


def _edge(runs: Runs) -> str:
    cost = runs.first["cost"]
    return (
        f"The edge computes {count(cost['edge_multiply_adds'])} multiply-adds an image, "
        f"{percent(cost['edge_share'])} of the whole baseline's."
    )


def _privacy(runs: Runs) -> str:
    recovered = [seed.recovered for seed in runs.seeds if seed.recovered is not None]
    if recovered:
        mean = percent(sum(recovered) / len(recovered))
        return f"From what the cloud receives, facemix audit recovers at least {mean} of what there is to recover."
    if any(seed.values.get("privacy") for seed in runs.seeds):
        return UNKNOWN
    return UNMEASURED if runs.protected else f"{UNMEASURED} {NO_CIPHER}"
