"""What reports of made-up results conclude."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import ALL, collapse_values, results
from facemix.report import Runs
from facemix.report.figures import accuracy
from facemix.report.results import Result
from facemix.report.verdict import UNKNOWN, verdict


def made(accuracies: dict[str, float]) -> Runs:
    return Runs(tuple(Result(Path(), results(seed, accuracies)) for seed in range(2)))


@pytest.mark.parametrize(
    ("changes", "answer", "headline"),
    [
        ({}, "yes", "Yes: the mix costs 2.0 points"),
        ({"mixing_aware": 0.95}, "yes", "Yes: the mix costs 0.0 points"),
        (
            {"mixing_aware": 0.80, "collapsed": 0.2},
            "no",
            "No: the mix costs 13.0 points of accuracy, more than the 3.0",
        ),
        ({"baseline_longer": 0.915}, "yes", "Yes: the mix costs 0.5 points"),
        ({"baseline_longer": 0.96}, "no", "No: the mix costs 5.0 points of accuracy, more than the 3.0"),
        ({"linear_cloud": 0.905}, "no", "No: a cloud without any non-linearity does as well"),
        ({"linear_cloud": 0.895}, "yes", "Yes"),
        (
            {"collapsed": 0.905},
            "no",
            "No: one matrix on the edge does what the cloud does, for 5.00 M multiply-adds there instead of 10.00 M",
        ),
        ({"collapsed": None}, "open", "The mix costs 2.0 points of accuracy; whether it is needed is open"),
        ({"linear_cloud": None}, "open", "The mix costs 2.0 points of accuracy; whether it is needed is open"),
    ],
)
def test_verdict(changes: dict[str, float | None], answer: str, headline: str) -> None:
    runs = made({name: accuracy for name, accuracy in {**ALL, **changes}.items() if accuracy is not None})
    given = verdict(runs)
    assert given.answer == answer
    assert given.headline.startswith(headline)


def test_verdict_on_a_matrix_that_costs_more_than_the_split() -> None:
    """It matches; but reduced or not, the edge computes more than twice as much with it as it is cut."""
    runs = made({**ALL, "collapsed": 0.905})
    for seed in runs.seeds:
        seed.values["collapse"] = collapse_values(0.91, 0.905, multiply_adds=21_000_000)
    assert verdict(runs).answer == "yes"
    for seed in runs.seeds:
        seed.values["collapse"] |= {"matrix_multiply_adds": 15_000_000}  # and its reduced form: 2006
    assert verdict(runs).headline.startswith("No: one matrix on the edge")


@pytest.mark.parametrize(
    ("longer", "change"), [(0.96, "5.0 points lost"), (0.90, "1.0 point won"), (None, "2.0 points lost")]
)
def test_a_loss_is_taken_against_the_longer_baseline(longer: float | None, change: str) -> None:
    runs = made(ALL if longer is None else {**ALL, "baseline_longer": longer})
    sentence = verdict(runs).reasons[0]
    start = "Through the mix, in groups of 4, the mixing-aware network is right in 91.5 ± 0.7 %; the baseline, without"
    assert sentence.startswith(f"{start} the mix, in 93.5 ± 0.7 % after 20 epochs")
    if longer is None:  # it was not trained
        assert sentence.endswith(f" epochs, fewer than the other, which went on for 40 epochs more: {change}.")
    else:
        told = f" and in {100 * longer + 0.5:.1f} ± 0.7 % after 40 epochs more, as many as the other had: {change}."
        assert sentence.endswith(told)
    for seed in runs.seeds:
        seed.values["settings"] |= {"mixed": {"epochs": 1, "early_stopping": 3}}
    stopped = verdict(runs).reasons[0]  # where neither may have gone to its end, nor both as far
    assert " at most 1 epoch more" in stopped
    assert "as many as" not in stopped


def test_a_longer_baseline_alone_is_not_compared_with_anything() -> None:
    """As that of a sweep, whose other rows share it."""
    runs = made({"baseline": 0.93, "baseline_longer": 0.95})
    table = accuracy(runs)
    assert [row[0] for row in table.rows] == ["baseline, no mix", "baseline, longer, no mix", "chance"]
    assert table.note.endswith(" Longer: for 40 epochs more.")
    assert "Longer" not in accuracy(made(ALL)).note


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("noise", "93.5 ± 0.7 % after 20 epochs and in 95.5 ± 0.7 % after 40 epochs more, as many as the other had."),
        ("plain", "93.5 ± 0.7 %."),  # it is the baseline
    ],
)
def test_what_is_said_of_the_baseline_beside_a_protection(name: str, said: str) -> None:
    longer = {} if name == "plain" else {"baseline_longer": 0.95}
    runs = made({"baseline": 0.93, "protected": 0.93, **longer})
    for seed in runs.seeds:
        seed.values["settings"]["protection"] = {"name": name, "sigma": 8.0}
        seed.values["cost"] = {"edge_multiply_adds": 0, "edge_share": 0.0}
    assert verdict(runs).reasons[0].endswith(f"the baseline, on the images themselves, in {said}")


def test_verdict_tells_seeds_apart() -> None:
    runs = made(ALL)
    runs.seeds[1].values["collapse"] = collapse_values(0.92, 0.92)
    told = verdict(runs)
    assert told.answer == "yes"
    collapse = (
        "Collapse (control 3), seed 0: The matrix does not match. Over all seeds 73.5 ± 26.2 % are right with the "
    )
    assert f"{collapse}matrix; it matches in 1 of 2." in told.reasons
    for seed in runs.seeds:
        seed.values["privacy"] = {"answer": "recovered", "recovered": 0.97 + 0.01 * seed["seed"]}
    told = "From what the cloud receives, facemix audit recovers at least 97.5 % of what there is to recover."
    assert told in verdict(runs).reasons
    for seed in runs.seeds:
        seed.values["privacy"] = {"answer": "unknown", "recovered": 0.01}
    assert UNKNOWN in verdict(runs).reasons
    small = made({**ALL, "linear_cloud": 0.88})
    small.seeds[0].values["scores"]["linear_cloud"]["accuracy"] = 0.82
    assert "bring 6.0 points." in " ".join(verdict(small).reasons)
    assert verdict(small).answer == "yes"
    small.seeds[1].values["scores"]["linear_cloud"]["accuracy"] = 0.92
    assert "bring nothing that counts (4.5 ± 6.4 points)." in " ".join(verdict(small).reasons)
