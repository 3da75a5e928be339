"""`facemix audit` on a tiny network that nobody trained, with attacks of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audit_outcomes import FULL, KINDS, attack
from experiments import ALL, results, save
from facemix.audit import registry
from facemix.audit.target import Target
from facemix.cli import main
from facemix.data import open_data
from facemix.edge.blinders import Blinders
from facemix.edge.blinding import Blinding
from facemix.models import build
from facemix.report.results import read_result
from facemix.training.deciding import plain
from facemix.training.deploy import write_halves
from facemix.training.settings import DataSettings, Experiment, MixSettings, ModelSettings

from facemix_ops.edge import EdgeModel

DATA = DataSettings(source="synthetic", people=4, photos=10, size=(24, 24))
OPTIONS = {"num_classes": 4, "in_channels": 1, "width": 0.0625}
EXPERIMENT = Experiment("tiny", DATA, ModelSettings(options={"width": 0.0625}), mix=MixSettings(4, max_coeff=0.9))

ATTACK = """
from facemix.audit.attack import Attack
from facemix.audit.outcome import Outcome


class Mine(Attack):
    name, title, knows, source = "mine", "Mine?", "the seed", "here"

    def run(self, scene, progress):
        scene.cloud(scene.request(0).received)
        says = f"{len(scene.victims)} victims, seed {scene.seed}, {scene.effort}, C = {scene.edge.max_coeff}."
        return Outcome("done", measure="m", floor=0.0, result=0.8, ceiling=1.0, says=says)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a seed, as `facemix train` leaves it."""
    values = results(0, ALL)
    values["settings"] = plain({**values["settings"], "data": vars(DATA) | {"augment": {}, "distort": {}}})
    folder = save(tmp_path_factory.mktemp("tiny"), values)
    torch.manual_seed(0)
    network, train = build("resnet18", OPTIONS).eval(), open_data(DATA).train
    write_halves(folder, network, EXPERIMENT, EXPERIMENT.model, OPTIONS, train, [str(n) for n in range(4)])
    (folder.parent / "mine.py").write_text(ATTACK)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "seed-0"))


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(*made: Any) -> None:
        monkeypatch.setattr(registry, "ATTACKS", made)

    use(attack("full", FULL), attack("slow", KINDS["skipped"]))
    return use


def test_what_is_attacked_is_told_from_all_else(run: Path, tmp_path: Path) -> None:
    """By what its outcomes are kept under: those of another bound, say, are not taken for its own."""
    target = Target(run / "edge.safetensors", DATA, run / "cloud.safetensors")
    row = (bytes(32), np.zeros(2, np.float32))
    pool = Blinders.create(tmp_path / "pool", target.bundle.network, Blinding(0.1, 1.0), (2, 2), [row])
    others: list[dict[str, Any]] = [{"max_coeff": 0.8}, {"wire_dtype": "float16"}, {"cloud": None}]
    for other in (*others, {"blinders": pool.path}):
        assert replace(target, **other).settings() != target.settings(), other


def mine(run: Path) -> list[str]:
    return ["--attack-file", str(run.parent / "mine.py")]


def test_a_run_is_audited_as_it_was_trained(run: Path, trained: Path, attacks: Any, capsys: Any) -> None:
    shutil.copy(trained.parent / "mine.py", run.parent)
    assert main(["audit", str(run), "--quick", *mine(run)]) == 0
    audit = json.loads((run / "audit" / "audit.json").read_text())
    said = {one["name"]: one["says"] for one in audit["attacks"]}
    assert list(said) == ["full", "slow", "mine"]
    assert said["mine"] == "12 victims, seed 0, quick, C = 0.9."
    assert (audit["recovered"], audit["worst"], audit["unknown"]) == (pytest.approx(0.985, abs=1e-3), "full", ["slow"])
    settings = audit["settings"]
    assert (settings["victims"], settings["gallery"], settings["photographs of the attacker"]) == (12, 4, 24)
    assert str(run) not in json.dumps(audit)
    privacy = read_result(run / "results.json")["privacy"]
    assert (privacy["recovered"], privacy["unknown"]) == (audit["recovered"], ["slow"])
    assert read_result(run / "results.json").recovered == audit["recovered"]
    said = capsys.readouterr()
    assert "Not hidden. Faces come out at a correlation of 0.995." in said.out
    assert f"report: {run / 'audit' / 'audit.html'}" in said.out
    assert "facemix audit: full: recovered 98.5 % (0.0 s)" in said.err


def test_another_edge_than_the_trained_one_leaves_the_results_alone(run: Path, attacks: Any) -> None:
    before = (run / "results.json").read_bytes()
    half, pool = EdgeModel.load(run / "edge.safetensors"), run.parent / "pool"
    blinding, shape = Blinding.of(half, half.bundle.decoys), half.bundle.features_shape
    Blinders.create(pool, half.bundle.network, blinding, shape, [(bytes(32), np.zeros(4, np.float32))])
    options = [
        ["--blinders", str(pool)],
        ["--max-coeff", "0.8"],
        ["--wire-dtype", "int8"],
        ["--data.people", "5", "--data.task", "attributes"],
        ["--edge", str(shutil.copy(run / "edge.safetensors", run.parent / "o"))],
    ]
    for option in options:
        assert main(["audit", str(run), *option]) == 0
        assert (run / "results.json").read_bytes() == before
    assert Blinders(pool).left == 1
    assert main(["audit", str(run), "--blinders", str(pool), "--out", str(run.parent / "blinded")]) == 0
    found = json.loads((run.parent / "blinded" / "audit.json").read_text())["settings"]["blinding"]
    assert found == asdict(blinding)


def test_no_victims_are_refused(run: Path, attacks: Any, capsys: Any) -> None:
    assert main(["audit", str(run), "--victims", "-3"]) == 1
    assert "audit: --victims must be at least 1, got -3" in capsys.readouterr().err


def test_options_win_over_the_run(run: Path, trained: Path, attacks: Any) -> None:
    options = ["--max-coeff", "0.8", "--victims", "8", "--seed", "5", "--out", str(run.parent / "there")]
    assert main(["audit", str(run), *options, "--attack-file", str(trained.parent / "mine.py")]) == 0
    audit = json.loads((run.parent / "there" / "audit.json").read_text())
    assert audit["attacks"][-1]["says"] == "8 victims, seed 5, full, C = 0.8."


def test_files_and_photographs_of_ones_own(run: Path, tmp_path: Path, attacks: Any) -> None:
    data = ["--data.source", "synthetic", "--data.people", "4", "--data.photos", "10"]
    files = ["--edge", str(run / "edge.safetensors"), "--cloud", str(run / "cloud.safetensors")]
    assert main(["audit", *files, *data, "--out", str(tmp_path / "a")]) == 0
    assert main(["audit", *files[:2], *data, "--out", str(tmp_path / "b")]) == 0
    settings = [json.loads((tmp_path / name / "audit.json").read_text())["settings"] for name in "ab"]
    assert [one["answers of the cloud"] for one in settings] == [True, False]
    assert settings[0]["victims"] == settings[1]["victims"] == 12


def test_what_is_finished_is_not_done_again(run: Path, attacks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = attack("a", KINDS["partly"]), attack("b", KINDS["partly"])
    attacks(first, second)
    monkeypatch.setattr(second, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (run / "audit").mkdir()
    (run / "audit" / "audit.html").write_text("of another audit")
    assert main(["audit", str(run)]) == 130
    assert [path.name for path in (run / "audit").iterdir()] == ["attacks"]  # an old report is not taken for this one
    monkeypatch.undo()
    attacks(first, attack("b", KINDS["withstood"]))
    assert main(["audit", str(run)]) == 0
    assert first.runs == 1
    audit = json.loads((run / "audit" / "audit.json").read_text())
    assert [one["level"] for one in audit["attacks"]] == ["partly", "withstood"]


@pytest.mark.parametrize(
    ("kinds", "above", "status"),
    [
        (["recovered", "skipped"], "0.5", 3),
        (["partly", "withstood"], "0.5", 0),
        (["partly", "withstood"], "0.1", 3),
        (["withstood", "not converged"], "0.5", 4),
        (["does not apply"], "0.5", 4),
        (["recovered", "skipped"], None, 0),
    ],
)
def test_exit_status(run: Path, attacks: Any, kinds: list[str], above: str | None, status: int) -> None:
    attacks(*(attack(f"a{n}", KINDS[kind]) for n, kind in enumerate(kinds)))
    option = [] if above is None else ["--fail-above", above]
    assert main(["audit", str(run), *option]) == status


def test_only_some_attacks(run: Path, attacks: Any) -> None:
    attacks(attack("a", KINDS["withstood"]), attack("b", KINDS["partly"]))
    assert main(["audit", str(run), "--attacks", "a", "--fail-above", "0.5"]) == 4
    assert main(["audit", str(run), "--attacks", "b", "--fail-above", "0.5"]) == 0  # the other one is known by now


def test_a_weaker_audit_takes_nothing_back(run: Path, attacks: Any) -> None:
    """Of the audits of an edge the furthest one counts, and an attack that ever gave an answer is not unknown."""

    def privacy(*options: str) -> dict[str, Any]:
        assert main(["audit", str(run), *options]) == 0
        found = read_result(run / "results.json")["privacy"]
        return {name: found[name] for name in ("answer", "recovered", "worst", "unknown", "answered")}

    attacks(attack("full", FULL), attack("weak", KINDS["partly"]), attack("slow", KINDS["skipped"]))
    before = privacy()
    assert (before["worst"], before["unknown"], before["answered"]) == ("full", ["slow"], ["full", "weak"])
    attacks(attack("full", KINDS["skipped"]), attack("weak", KINDS["partly"]), attack("slow", KINDS["withstood"]))
    after = privacy("--attacks", "weak", "slow", "--seed", "1")
    assert after == {**before, "unknown": [], "answered": ["full", "weak", "slow"]}
    assert privacy("--seed", "2")["recovered"] == before["recovered"]


def test_the_list_imports_nothing_that_only_attacks_need() -> None:
    heavy = ("lightning", "sklearn", "matplotlib", "torchmetrics", "scipy.stats", "torch._dynamo")
    code = f"""
import sys
from facemix.cli import main
main(["audit", "--list"])
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_list(attacks: Any, capsys: Any) -> None:
    assert main(["audit", "--list"]) == 0
    said = capsys.readouterr().out
    assert "full" in said
    assert "this test" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--attacks", "nobody"], "audit: --attacks must be of full, slow, got 'nobody'"),
        (["--fail-above", "2"], "audit: --fail-above must be between 0 and 1, got 2.0"),
        (["--attack-file", "none.py"], "audit: --attack-file must be a file, got none.py"),
        (["--out", "x"], "audit: RUN or --edge must be given, got neither"),
        (["--edge", "x", "--data.source=synthetic"], "audit: --out must be given where there is no RUN, got none"),
        (["--edge", "x", "--out", "x"], "audit: --data.source must be given with --edge"),
        (["--edge", "x", "--out", "x", "--data.root=x"], "audit: --data.source must be given with --edge"),
        (["--edge", "x", "--out", "x", "--data.source=synthetic"], "No such file"),
    ],
)
def test_refusals(options: list[str], message: str, attacks: Any, capsys: Any) -> None:
    assert main(["audit", *options]) == 1
    assert message in capsys.readouterr().err


def test_refusals_of_a_run(run: Path, attacks: Any, capsys: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other"
    network, train = build("resnet18", OPTIONS).eval(), open_data(DATA).train
    write_halves(other, network, EXPERIMENT, EXPERIMENT.model, OPTIONS, train, list("abcd"))
    assert main(["audit", str(run), "--cloud", str(other / "cloud.safetensors")]) == 1
    assert "must be the middle of the edge's network" in capsys.readouterr().err
    assert main(["audit", str(run), "--max-coeff", "0.6"]) == 1
    assert (
        "load_edge: max_coeff must be at least 0.63 for groups of 4 and at most 1, got 0.6" in capsys.readouterr().err
    )
    assert main(["audit", str(run.parent)]) == 1
    said = capsys.readouterr().err
    assert "audit: RUN must hold edge.safetensors, as the folder of a seed does that is" in said
    assert said.endswith(f"got {run.parent}; did you mean {run}?\n")
    (run / "results.json").unlink()
    assert main(["audit", str(run)]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "must define a class derived from Attack, with run, got none"),
        (ATTACK.replace('"mine"', '"full"'), "every attack must have a name of its own, got 'full' twice"),
        (ATTACK.replace('"mine"', '"My attack"'), "name must be small letters, digits and _, got 'My attack'"),
        (
            ATTACK.replace("knows, source =", "knows, sources ="),
            "Mine must have name, title, knows, source, got no sour",
        ),
    ],
)
def test_files_without_an_attack(text: str, message: str, attacks: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert main(["audit", "--list", *mine(tmp_path / "seed-0")]) == 1
    assert message in capsys.readouterr().err


def test_blinders_of_another_network_are_refused(run: Path, attacks: Any, capsys: Any) -> None:
    half, pool = EdgeModel.load(run / "edge.safetensors"), run.parent / "pool"
    row = (bytes(32), np.zeros(4, np.float32))
    Blinders.create(pool, "another", Blinding(0.01, 1.0), half.bundle.features_shape, [row])
    assert main(["audit", str(run), "--blinders", str(pool)]) == 1
    assert "must be of network" in capsys.readouterr().err
