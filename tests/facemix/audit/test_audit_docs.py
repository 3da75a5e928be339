"""What docs/audit.md shows runs as it stands."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from audit_scenes import OneTimePad, PixelEdge, scene
from facemix.audit import run
from facemix.audit.loading import load_attacks
from facemix.audit.registry import ATTACKS
from facemix.audit.run import run_audit
from facemix.export import export_edge
from facemix.models import build

PAGE = Path(__file__).parents[3] / "docs" / "audit.md"
BLOCK = re.compile(r"^<!-- tested: (?P<name>\w+) -->\n```python\n(?P<code>.*?)^```$", re.M | re.S)
BLOCKS = {match["name"]: match["code"] for match in BLOCK.finditer(PAGE.read_text())}


@pytest.fixture
def attack(tmp_path):
    path = tmp_path / "group_energy.py"
    path.write_text(BLOCKS["attack"])
    (found,) = load_attacks(path, [attack.name for attack in ATTACKS])
    return found


def test_all_python_on_the_page_is_tested():
    assert PAGE.read_text().count("```python") == len(BLOCKS) == 2


def test_all_attacks_are_on_the_page():
    for one in ATTACKS:
        assert PAGE.read_text().count(f"\n| `{one.name}` | ") == 1


def test_the_example_succeeds_where_it_must(attack):
    outcome = run_audit(scene(PixelEdge(4)), [attack])["group_energy"]
    assert outcome.status == "done"
    assert outcome.result == pytest.approx(1, abs=1e-5)
    assert outcome.recovered == pytest.approx(1, abs=1e-5)
    assert outcome.floor < 0.9
    assert [len(line.pictures) for line in outcome.pictures] == [8, 8]


def test_and_fails_where_nothing_can_succeed(attack):
    outcome = run_audit(scene(OneTimePad(4)), [attack])["group_energy"]
    assert outcome.recovered < 0.05


def test_one_group_alone_is_no_answer(attack):
    assert run_audit(scene(PixelEdge(32)), [attack])["group_energy"].status == "skipped"


def test_the_program(tmp_path, monkeypatch):
    """On a network that nobody trained, with the attack of the page."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(BLOCKS["attack"])
    monkeypatch.setattr(run.run_audit, "__defaults__", (load_attacks(tmp_path / "mine.py", []),))
    torch.manual_seed(0)
    network = build("resnet18", {"num_classes": 5, "in_channels": 1, "width": 0.0625}).eval()
    path = tmp_path / "runs" / "orl" / "seed-0" / "edge.safetensors"
    export_edge(path, network, (1, 56, 46), name="n", group_size=8, mean=[0.5], std=[0.25], max_coeff=0.6)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(BLOCKS["program"], "program", "exec"), {})
    lines = said.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["None", "0.5"]
    assert all("'group_energy': " in line for line in lines)
