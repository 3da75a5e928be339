"""The words of verdicts, over all combinations of outcomes."""

import json
import re
from dataclasses import fields
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from audit_outcomes import KINDS
from facemix.audit.outcome import Outcome
from facemix.audit.verdict import exit_status, level, levels, sentence, verdict

UNKNOWN = ("not converged", "skipped")
ALL = [kinds for count in range(6) for kinds in combinations_with_replacement(KINDS, count)]
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "audit"
STARTS = {
    "recovered": "Not hidden. The cloud recovers 97 % of the faces.",
    "partly": "Hidden in part only. It tells 60 % of the pairs, 50 % by chance.",
    "unknown": "Unknown: ",
    "withstood": ("None of these ", "This attack recovered no more than "),
}


def named(kinds: tuple[str, ...]) -> dict[str, Outcome]:
    return {f"attack_{n}": KINDS[kind] for n, kind in enumerate(kinds)}


def expected(kinds: tuple[str, ...]) -> str:
    """By the rule, not by the code: the worst of what is known; and nothing is good where something is not known."""
    for answer in ("recovered", "partly"):
        if answer in kinds:
            return answer
    return "unknown" if set(kinds) & set(UNKNOWN) or "withstood" not in kinds else "withstood"


@pytest.mark.parametrize("order", [1, -1], ids=["in order", "reversed"])
def test_the_worst_attack_speaks_and_nothing_is_clean_while_something_is_unknown(order):
    for kinds in ALL:
        found = verdict(named(kinds[::order]))
        assert found.answer == expected(kinds)
        assert found.headline.startswith(STARTS[found.answer]), kinds
        assert [start for start in STARTS.values() if found.headline.startswith(start)] == [STARTS[found.answer]]


def test_nothing_is_called_safe_secure_or_private():
    for kinds in ALL:
        found = verdict(named(kinds))
        text = " ".join((found.headline, *found.reasons)).lower().replace("unknown, which is not safe", "")
        assert not re.search(r"\bsafe|secur|privat|protect|encrypt|\bpass", text), text


def test_every_attack_is_told_once():
    for kinds in ALL:
        outcomes = named(kinds)
        found = verdict(outcomes)
        assert found.unknown == tuple(name for name, o in outcomes.items() if o.status in UNKNOWN)
        for name, outcome in outcomes.items():
            words = name.replace("_", " ")
            lines = [line for line in found.reasons if words in line.lower()]
            in_headline = name == found.worst and found.answer in ("recovered", "partly")
            assert len(lines) == (not in_headline), (kinds, name)
            if outcome.status in UNKNOWN:
                assert lines[0].startswith("Unknown, which is not safe: ")
                assert outcome.status in lines[0]
                assert sentence(outcome.reason) in lines[0]
            elif level(outcome) in ("recovered", "partly"):
                assert outcome.says in found.headline or outcome.says in lines[0]


def test_the_worst_comes_first():
    some = {"a": KINDS["withstood"], "b": KINDS["partly"], "c": KINDS["recovered"], "d": KINDS["partly"]}
    found = verdict(some)
    assert (found.worst, found.recovered) == ("c", KINDS["recovered"].recovered)
    assert [line.split(":")[0] for line in found.reasons] == ["B", "D", "Got nothing that counts"]


def test_of_equals_the_one_that_ends_with_faces_speaks():
    nearly = Outcome("done", measure="m", floor=0.1, result=0.97, ceiling=1.0, says="All faces come out.")
    found = verdict({"a": KINDS["recovered"], "end_to_end": nearly})
    assert found.headline == "Not hidden. All faces come out."
    assert found.recovered == KINDS["recovered"].recovered
    assert verdict({"a": KINDS["recovered"], "end_to_end": KINDS["partly"]}).worst == "a"


def test_exit_statuses():
    for kinds in ALL:
        found = verdict(named(kinds))
        silent = bool(set(kinds) & set(UNKNOWN)) or not set(kinds) & {"recovered", "partly", "withstood"}
        assert exit_status(found, 0.5) == (3 if "recovered" in kinds else 4 if silent else 0)
        assert exit_status(found, 1.0) == (4 if silent else 0)
        above = {"recovered", "partly", "withstood"} & set(kinds)
        assert exit_status(found, 0.0) == (3 if above else 4)


@pytest.mark.parametrize(
    ("result", "expected"), [(0.5, "recovered"), (0.499, "partly"), (0.05, "partly"), (0.049, "withstood")]
)
def test_where_the_levels_part(result, expected):
    assert level(Outcome("done", measure="m", floor=0.0, result=result, ceiling=1.0, says="s")) == expected
    figures = {"measure": "m", "floor": 0.0, "result": result, "ceiling": 1.0}
    assert level(Outcome("not converged", "steps", **figures)) == "unknown"  # whatever figures it has
    assert level(Outcome("does not apply", "no mix", **figures)) == "does not apply"


def test_no_more_than_the_threshold_does_not_fail():
    outcome = Outcome("done", measure="m", floor=0.0, result=0.25, ceiling=1.0, says="s")
    assert [exit_status(verdict({"a": outcome}), above) for above in (0.2, 0.25)] == [3, 0]


def got(result: float, *interval: float, floor: float = 0.0) -> Outcome:
    figures = {"measure": "m", "floor": floor, "result": result, "ceiling": 1.0}
    return Outcome("done", **figures, interval=interval or None, says=f"It gets {result}.")


def test_what_may_be_chance_is_not_called_a_leak():
    assert level(got(0.2, -0.01, 0.41)) == "withstood"
    assert level(got(0.2, 0.01, 0.39)) == "partly"
    assert level(got(0.2, 0.01, 0.39), among=10) == "withstood"  # of ten, one is as lucky
    assert level(got(0.2, 0.08, 0.32), among=10) == "partly"
    assert level(got(0.2)) == "partly"  # nothing tells
    assert level(got(0.6, -0.1, 1.0), among=10) == "recovered"
    ten = {f"attack_{n}": got(0.2, 0.01, 0.39) for n in range(10)}
    assert set(levels(ten).values()) == {"withstood"}
    silent = dict.fromkeys(list(ten)[1:], KINDS["skipped"])  # gave no figure
    assert levels(ten | silent)["attack_0"] == "partly"


def test_the_chance_of_one_does_not_silence_another():
    some = {"lucky": got(0.3, -0.1, 0.7), "leak": got(0.1, 0.09, 0.11), "little": got(0.01, 0.0, 0.02)}
    found = verdict(some)
    assert (found.answer, found.headline) == ("partly", "Hidden in part only. It gets 0.1.")
    assert found.reasons == ("Got nothing that counts: lucky (30.0 %, not significant), little (1.0 %).",)
    assert (found.recovered, found.worst, exit_status(found, 0.2)) == (0.3, "lucky", 3)
    del some["leak"]
    found = verdict(some)
    assert found.answer == "withstood"
    assert found.headline.startswith("None of these 2 attacks recovered more than 30.0 %.")


@pytest.mark.parametrize(
    ("name", "expected"), [("orl", "recovered"), ("plain", "recovered"), ("orl-blinded", "withstood")]
)
def test_audits_of_an_earlier_version_can_be_weighed(name, expected):
    names = {field.name for field in fields(Outcome)}
    attacks = json.loads((RESULTS / f"{name}.json").read_text())["attacks"]
    outcomes = {
        one["name"]: Outcome(**{key: value for key, value in one.items() if key in names and key != "variants"})
        for one in attacks
    }
    assert verdict(outcomes).answer == expected
    if name == "orl":
        assert levels(outcomes) == {one["name"]: one["level"] for one in attacks}
