"""The page of an audit, of made-up outcomes."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from itertools import combinations_with_replacement
from pathlib import Path

import pytest
from audit_outcomes import FULL, KINDS, attack
from experiments import ALL, results, save
from facemix.audit.outcome import Outcome
from facemix.audit.record import Audit
from facemix.audit.report import HTML, JSON, add_privacy, write_audit
from facemix.audit.report.page import page
from facemix.audit.verdict import verdict
from facemix.report.results import read_result
from pages import Reader


def audit(outcomes: dict[str, Outcome]) -> Audit:
    attacks = tuple(attack(name, outcome) for name, outcome in outcomes.items())
    settings = {"seed": 7, "effort": "quick", "deep": {"er": "<i>"}}
    return Audit("faces <b>", attacks, outcomes, settings, {"cpu": "a processor"})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit")
    write_audit(audit({"full": FULL, **{kind.replace(" ", "_"): outcome for kind, outcome in KINDS.items()}}), out)
    return out


def test_page_is_whole_and_alone(written: Path) -> None:
    text = (written / HTML).read_text()
    read = Reader(text)
    assert read.open == []
    inside = [source for source in read.sources if not source.startswith("#")]
    assert len(inside) == 1
    picture = base64.b64decode(inside[0].removeprefix("data:image/png;base64,"))
    assert picture == (written / "pictures" / "full.png").read_bytes()
    assert not re.search(r"url\(|@import|<script", text)
    assert "prefers-color-scheme: dark" in text
    assert "<b>" not in text
    assert "<i>" not in text
    for link in set(read.sources) - set(inside):
        assert f'id="{link[1:]}"' in text


def test_pictures_of_an_earlier_audit_do_not_stay(tmp_path: Path) -> None:
    write_audit(audit({"full": FULL}), tmp_path)
    own = tmp_path / "pictures" / "mine.png"
    own.touch()
    write_audit(audit({"full": KINDS["skipped"]}), tmp_path)
    assert list((tmp_path / "pictures").iterdir()) == [own]


def test_page_and_json_have_everything(written: Path) -> None:
    text = " ".join(" ".join(Reader((written / HTML).read_text()).text).split())
    for words in (
        "What the cloud recovers from faces <b>",
        "Not hidden. Faces come out at a correlation of 0.995.",
        "Recovered: The cloud recovers 97 % of the faces.",
        "What of full <b>?", "mean matched |correlation|", "0.670 0.995 0.990 to 0.997 1.000 98.5 %",
        "knows nothing from this test", "raw values 0.670 0.720", "others: area 0.900; by chance 0.5",
        "Not converged. It ran out of steps.", "Skipped. It takes minutes.", "Does not apply. Nothing is mixed.",
        "seed 7", "effort quick", "deep.er <i>", "cpu a processor",
    ):  # fmt: skip
        assert words in text, words
    values = json.loads((written / JSON).read_text())
    assert values["verdict"]["headline"] in text
    full = values["attacks"][0]
    assert (full["name"], full["level"], full["variants"][1]["result"]) == ("full", "recovered", 0.995)
    assert full["curves"][0]["true_positive"] == [0.0, 0.9, 1.0]
    assert [one["status"] for one in values["attacks"][-3:]] == ["not converged", "skipped", "does not apply"]
    assert "pictures" not in full


def test_the_box_has_the_colour_of_the_worst() -> None:
    """Green is for one case: all have an answer, and none got anything that counts."""
    for count in range(1, 4):
        for kinds in combinations_with_replacement(KINDS, count):
            outcomes = {f"a{n}": KINDS[kind] for n, kind in enumerate(kinds)}
            text = page(audit(outcomes), {})
            found = verdict(outcomes)
            assert re.findall(r'class="verdict (\w+)"', text) == [found.answer]
            box = text[text.index('class="verdict') : text.index("<h2>Attacks")].replace("\N{NO-BREAK SPACE}", " ")
            assert found.headline in box.replace("&gt;", ">")
            assert f"<title>facemix audit of faces &lt;b&gt;: {found.headline}</title>" in text
            shares = re.findall(r'class="share">([^<]*)<', text)
            unknown = sum(kind in ("not converged", "skipped") for kind in kinds)
            assert shares.count("unknown") == unknown
            green = set(kinds) <= {"withstood", "does not apply"} and "withstood" in kinds
            assert ("verdict withstood" in text) is green, kinds


def test_no_figure_stands_in_the_place_of_an_answer() -> None:
    """An attack that ran out of steps may have figures; its share is unknown, and it has no gauge."""
    stopped = Outcome("not converged", "steps", measure="m", floor=0.2, result=0.2, ceiling=0.9)
    text = page(audit({"a": stopped}), {})
    assert re.findall(r'class="share">([^<]*)<', text) == ["unknown"]
    assert 'class="result"' not in text
    assert 'class="verdict unknown"' in text


def test_privacy_goes_into_the_results_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = save(tmp_path, results(0, ALL))
    before = read_result(folder / "results.json").values
    add_privacy(audit({"a": KINDS["withstood"], "b": KINDS["skipped"]}), folder)
    found = read_result(folder / "results.json")
    privacy = found.values.pop("privacy")
    assert found.values == before
    assert privacy["recovered"] == pytest.approx(0.0143, abs=1e-4)
    assert (privacy["answer"], privacy["unknown"], privacy["settings"]["effort"]) == ("unknown", ["b"], "quick")
    add_privacy(audit({"a": KINDS["withstood"], "b": KINDS["skipped"]}), folder)
    assert read_result(folder / "results.json").recovered is None  # little, and not all of it is known
    add_privacy(audit({"a": KINDS["partly"], "b": KINDS["skipped"]}), folder)
    assert read_result(folder / "results.json").recovered == pytest.approx(0.2)
    lucky = replace(KINDS["partly"], result=0.65, interval=(0.4, 0.9))
    add_privacy(audit({"a": lucky, "b": KINDS["withstood"]}), folder)  # more, but not significantly
    privacy = read_result(folder / "results.json").values["privacy"]
    assert (privacy["answer"], privacy["recovered"]) == ("partly", pytest.approx(0.2))
