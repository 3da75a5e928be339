"""Reports, of made-up results."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from experiments import ALL, attribute_score, png, results, save
from facemix.cli import main
from facemix.report import Spread, read_runs, write_report
from facemix.report.paper import paper_rows
from facemix.report.spread import count
from facemix.report.table import Table
from pages import Reader


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of three seeds with a picture, and its report."""
    out = tmp_path_factory.mktemp("experiment")
    for seed in range(3):
        folder = save(out, {**results(seed, ALL), "pictures": {"examples": "examples.png"}})
        png(folder / "examples.png", 3 + seed)
    assert main(["report", str(out)]) == 0
    return out


def test_page_is_whole_and_alone(reported: Path) -> None:
    text = (reported / "report.html").read_text()
    page = Reader(text)
    assert page.open == []
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"url\(|@import|<script", text)
    assert "prefers-color-scheme: dark" in text
    pictures = [base64.b64decode(source.partition(",")[2]) for source in page.sources]
    assert (reported / "seed-0" / "examples.png").read_bytes() in pictures
    assert "Bob <b>" in "".join(page.text)  # names are text, never markup
    assert "<b>" not in text


def test_page_and_markdown_say_the_same(reported: Path) -> None:
    page = "".join(Reader((reported / "report.html").read_text()).text)
    text = (reported / "report.md").read_text()
    spreads = ("94.0 ± 1.0 %", "93.0 to 95.0 %", "22.0 ± 1.0 %", "63.0 ± 1.0 %", "56.0 ± 1.0 %", "33.3 ± 0.0 %")
    for words in (
        *spreads,
        "Yes: the mix costs 2.0 points of accuracy, and no control does as well for less.",
        "is right in 92.0 ± 1.0 %; the baseline, without the mix, in 94.0 ± 1.0 % after 20 epochs, fewer than",
        "fewer than the other, which went on for 40 epochs more: 2.0 points lost.",
        "the cloud's non-linear layers bring 29.0 points.",
        "Collapse (control 3), seed 0: The matrix does not match. Over all seeds 56.0 ± 1.0 % are right",
        "no facemix audit was run",
        "seeds 0, 1, 2: mean ± standard deviation",
        "10.00 M (10.0 %)",
        "3.00 MiB",
        "data.augment.scale",
        "0123abcd",
        "seconds, since it last went on",
        "12, 12, 12",
    ):
        assert words in page, words
        assert words in text, words
    assert "/photographs" not in text + page  # where they lie decides nothing
    assert "| Ann taken for Bob &lt;b&gt; | 24 | 8.0 % |" in text  # 7, 8 and 9 of 100 each


def test_markdown_of_a_table() -> None:
    table = Table("Title", ("", "figure"), (("a|b", "1"), ("<i>&", "2")), "A note.")
    assert table.markdown().splitlines() == [
        *["**Title**", "", "|  | figure |", "|---|---:|", r"| a\|b | 1 |", "| &lt;i&gt;&amp; | 2 |", "", "A note."],
    ]


def test_the_list_of_results(reported: Path) -> None:
    listed = json.loads((reported / "results.json").read_text())
    assert listed == [json.loads((reported / f"seed-{seed}" / "results.json").read_text()) for seed in range(3)]


def test_several_experiments(reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    save(other, {**results(0, {"baseline": 0.8}, group_size=1), "name": "another"})
    folders = [str(reported), str(other)]
    assert main(["report", *folders]) == 1
    assert "--out must be given with several folders, got 2" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["report", *folders, "--out", str(tmp_path / "file")]) == 1
    assert f"report: --out must be a folder, got {tmp_path / 'file'}" in capsys.readouterr().err
    assert main(["report", *folders, "--out", str(tmp_path / "both")]) == 0
    text = (tmp_path / "both" / "report.md").read_text()
    assert "| made-up | 4 | 1 | 10.0 % | 3 | 94.0 ± 1.0 % | 92.0 ± 1.0 % |" in text
    assert "| another | 1 |  |  | 1 | 80.0 % |  |  |  |  |  |" in text
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# made-up, another", "## made-up, N_pre = 1, S = 4", "## another, no mix"]
    assert "**No network was trained for the mix.**" in text
    assert Reader((tmp_path / "both" / "report.html").read_text()).open == []


def test_attributes(tmp_path: Path) -> None:
    for seed in range(2):
        values = results(seed, ALL)
        values["scores"] = {name: attribute_score(score["accuracy"]) for name, score in values["scores"].items()}
        values["data"]["source"] = "lfwa"
        save(tmp_path, values)
    write_report([tmp_path], tmp_path)
    text = (tmp_path / "report.md").read_text()
    row = "| wearing hat | 25.0 % | 75.0 % | 93.5 ± 0.7 % | 91.5 ± 0.7 % | 62.5 ± 0.7 % | 91.5 ± 0.7 % | 89.5 ± 0.7 % |"
    assert f"{row} 60.5 ± 0.7 % | 80.0 % | 90.0 % |" in text  # 8 of 10 who have it, 27 of 30 who have not
    assert "| FaceMix, N_pre = 1 | 91.5 ± 0.7 % | 90.5 % | 89.5 ± 0.7 % | 86.8 % |" in text
    assert "| FaceMix, N_pre = 2 |  | 90.7 % |  | 86.9 % |" in text
    page = (tmp_path / "report.html").read_text()
    assert "wearing hat" in page
    assert "taken for" not in page
    assert "matrix" not in re.findall(r'<img class="(\w+)"', page)


def protected(seed: int, accuracy: float, **protection: Any) -> dict[str, Any]:
    """Results of an experiment with another protection than the mix."""
    values = results(seed, {"baseline": 0.93, "protected": accuracy})
    values["settings"]["protection"] = {"name": "mix", "sigma": None, "size": None, "width": None, **protection}
    values["name"] = f"with {protection['name']}"
    edge = {"edge_multiply_adds": 0, "edge_parameters": 0, "edge_share": 0.0, "whole_parameters": 11_210_000}
    values["cost"] = {**results(0, ALL)["cost"], **edge}
    return values


def test_protections_stand_beside_the_mix(reported: Path, tmp_path: Path) -> None:
    noise, blur = tmp_path / "noise", tmp_path / "blur"
    for seed in range(2):
        save(
            noise,
            {**protected(seed, 0.88, name="noise", sigma=8.0), "privacy": {"answer": "recovered", "recovered": 0.9}},
        )
    save(blur, protected(0, 0.85, name="blur", size=16))
    write_report([noise, blur, reported], tmp_path / "all")
    text = (tmp_path / "all" / "report.md").read_text()
    for row in (
        "**Protections, synthetic, identity**",
        "| all on the edge | 11.21 M | 100.00 M | 93.5 ± 0.7 % | 93.5 ± 0.7 % | nothing is sent |",
        "| noise, sigma 8 | 0 | 0 | 88.5 ± 0.7 % | 88.5 ± 0.7 % | 90.0 ± 0.0 % |",
        "| blur to 16 x 16 | 0 | 0 | 85.0 % | 85.0 % | not measured |",
        "| FaceMix, N_pre = 1, S = 4 | 0.05 M | 10.00 M | 92.0 ± 1.0 % | 92.0 ± 1.0 % | not measured |",
        "| with blur |  |  | 0.0 % | 1 | 93.0 % |  | 85.0 % |",
        "## with noise, noise, sigma 8",
        "**Nothing is mixed: each image goes to the cloud by itself (noise, sigma 8).**",
        "behind the protection is right in 88.5 ± 0.7 %, the baseline, on the images themselves, in 93.5 ± 0.7 % after",
        "From what the cloud receives, facemix audit recovers at least 90.0 % of what there is to recover.",
    ):
        assert row in text, row
    page = "".join(Reader((tmp_path / "all" / "report.html").read_text()).text)
    assert "Protections, synthetic, identity" in page
    write_report([reported], tmp_path / "mix")
    assert "Protections" not in (tmp_path / "mix" / "report.md").read_text()


def test_a_protection_beside_the_paper(tmp_path: Path) -> None:
    values = protected(0, 0.88, name="noise", sigma=8.0)
    values["data"]["source"] = "celeba"
    save(tmp_path, values)
    write_report([tmp_path], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| baseline | 93.0 % | 91.0 % | 93.0 % |  | 85.5 % | 79.3 % |" in text
    assert "| noise N(0, 8), of a scale not printed |  | 87.9 % |  |  | 35.3 % | 70.8 % |" in text
    assert "| noise, sigma 8 | 88.0 % |  | 88.0 % |  |  |  |" in text, "the paper has no such row"
    assert "| FaceMix, N_pre = 1 |  | 90.7 % |  |  | 0.6 % | 51.5 % |" in text
    save(tmp_path, protected(0, 0.88, name="blur", size=16) | {"data": values["data"]})
    write_report([tmp_path], tmp_path)
    assert "| blur to 16 x 16 | 88.0 % | 89.0 % | 88.0 % |  | 52.2 % | 73.1 % |" in (tmp_path / "report.md").read_text()


def test_where_another_network_mixes_its_cut_is_named(tmp_path: Path) -> None:
    values = results(0, ALL)
    values["data"]["source"] = "celeba"
    values["settings"]["mixed_model"] = {"name": "wide_linear", "options": {}, "pre": 2, "post": 1}
    save(tmp_path / "one", values)
    save(tmp_path / "other", {**results(0, ALL), "name": "other"})
    write_report([tmp_path / "one", tmp_path / "other"], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "## made-up, N_pre = 2, S = 4" in text
    assert "| made-up | 4 | 2 | 10.0 % |" in text
    assert "| other | 4 | 1 | 10.0 % |" in text
    assert "| FaceMix, N_pre = 2 | 91.0 % | 90.7 % |" in text
    assert "these are of resnet18 and wide_linear, 3 labels" in text


def test_the_papers_figures() -> None:
    """Its Table 2 has accuracies on two sets, its Table 3 one, and the balanced one."""
    celeba, lfwa = paper_rows("celeba"), paper_rows("lfwa")
    assert [(row.method, row.validation, row.test) for row in celeba] == [
        ("baseline", 91.6, 91.0),
        ("noise N(0, 4), of a scale not printed", 89.2, 88.6),
        ("noise N(0, 8), of a scale not printed", 88.5, 87.9),
        ("blur to 16 x 16", 89.6, 89.0),
        ("blur to 8 x 8", 87.9, 87.3),
        ("face anonymizer, width 64", 90.5, 89.8),
        *(
            (f"FaceMix, N_pre = {pre}", *digits)
            for pre, digits in enumerate(((91.2, 90.7), (91.2, 90.7), (91.4, 91.0)), 1)
        ),
    ]
    assert [(row.method, row.test, row.balanced) for row in lfwa] == [
        ("baseline", 91.1, 87.1),
        ("noise N(0, 4), of a scale not printed", 88.5, 82.5),
        ("noise N(0, 8), of a scale not printed", 87.7, 81.3),
        ("blur to 16 x 16", 88.8, 83.4),
        ("blur to 8 x 8", 87.0, 80.6),
        *(
            (f"FaceMix, N_pre = {pre}", *digits)
            for pre, digits in enumerate(((90.5, 86.8), (90.7, 86.9), (90.7, 87.1)), 1)
        ),
    ]
    assert [(row.person, row.attributes) for row in celeba[-3:]] == [(0.6, 51.5), (0.6, 51.6), (0.6, 51.5)]
    assert [(row.person, row.attributes) for row in lfwa[-3:]] == [(None, 50.6), (None, 50.7), (None, 50.6)]
    assert paper_rows("orl") == ()


def test_spread() -> None:
    spread = Spread.of((0.9, 0.94))
    assert spread.percent() == "92.0 ± 2.8 %"
    assert spread.limits() == "90.0 to 94.0 %"
    assert (spread - Spread.of((0.8, 0.94))).values == pytest.approx((0.1, 0.0))
    assert Spread.of((0.905,)).percent() == "90.5 %"
    assert [count(n) for n in (9216, 46_000, 430_000, 1_500_000_000)] == ["9,216", "0.05 M", "0.43 M", "1.50 G"]


def test_seeds_share_a_report_where_training_takes_them_for_one_experiment(tmp_path: Path) -> None:
    for seed, trainer in enumerate(({}, {"devices": 2, "strategy": "ddp"}, {"precision": "16-mixed"})):
        values = results(seed, ALL)
        save(tmp_path, {**values, "settings": {**values["settings"], "trainer": trainer}})
        if seed == 1:
            assert len(read_runs(tmp_path).seeds) == 2
    with pytest.raises(ValueError, match=r"whose trainer.precision differ \(trainer.precision: None, then 16-mixed\)"):
        read_runs(tmp_path)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(message: str) -> None:
        assert main(["report", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("facemix: error: report: ")
        assert message in error
        assert not (tmp_path / "report.html").exists()

    refused(f"DIR must hold seed-*/results.json of a finished `facemix train`, got {tmp_path}")
    values = results(0, ALL)
    file = save(tmp_path, values) / "results.json"
    file.write_text("{")
    refused(f"{file} must be JSON, got")
    file.write_text("[]")
    refused("must be of kind 'facemix-experiment-1', got 'list'")
    save(tmp_path, {**values, "kind": "facemix-experiment-0"})
    refused("got 'facemix-experiment-0'")
    save(tmp_path, {name: value for name, value in values.items() if name not in ("data", "curves")})
    refused("got none of data, curves")
    save(tmp_path, {name: value for name, value in values.items() if name != "cost"})
    refused("must have the cost of the network that mixes, got none")
    save(tmp_path, {**values, "scores": {}})
    refused("must have scores of the baseline, got none")
    save(tmp_path, values)
    save(tmp_path, results(1, ALL, group_size=8))
    refused(
        f"must have the same settings, got {tmp_path / 'seed-0'} and {tmp_path / 'seed-1'}, whose mix.group_size "
        "differ (mix.group_size: 4, then 8)"
    )
    for section in ("settings", "data", "scores", "curves", "environment"):
        save(tmp_path, {**results(1, ALL), section: None})
        refused(f"seed-1/results.json must have {section} by name, got NoneType")
    save(tmp_path, results(1, ALL))
    assert len(read_runs(tmp_path).seeds) == 2  # paths alone may differ
    assert read_runs(str(tmp_path)) == read_runs(tmp_path)
    with pytest.raises(ValueError, match="report: folders must be those of one experiment, or more, got none"):
        write_report([], tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="--out must not be the folder of a seed"):
        write_report([tmp_path], tmp_path / "seed-1")
    assert json.loads((tmp_path / "seed-1" / "results.json").read_text())["seed"] == 1
    save(tmp_path, {**results(0, ALL), "pictures": {"examples": "lost.png"}})
    assert main(["report", str(tmp_path)]) == 1
    assert "lost.png" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["../../secret.png", "{tmp_path}/secret.png", "link.png", "notes.txt", "in/a.png", 3])
def test_no_file_but_the_runs_pictures_goes_into_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: object
) -> None:
    """Results may be a stranger's, and name any file of whoever makes the report."""
    out = tmp_path / "experiment"
    named = name.format(tmp_path=tmp_path) if isinstance(name, str) else name
    folder = save(out, {**results(0, ALL), "pictures": {"examples": named}})
    png(tmp_path / "secret.png", 3)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "notes.txt").write_text("secret")
    (folder / "in").mkdir()
    png(folder / "in" / "a.png", 3)
    assert main(["report", str(out)]) == 1
    assert f"report: pictures must be .png files in {folder}, got {str(named)[:80]!r}" in capsys.readouterr().err
    assert not (out / "report.html").exists()
