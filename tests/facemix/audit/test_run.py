"""Attacks one after another, with what is kept of them."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from audit_outcomes import FULL, KINDS, attack
from audit_scenes import PixelEdge, scene, textures
from facemix.audit import store as stored
from facemix.audit.attack import Attack
from facemix.audit.failure import PartFailed
from facemix.audit.outcome import Outcome
from facemix.audit.run import Watch, run_audit
from facemix.audit.scene import Scene
from facemix.audit.store import Store


@pytest.fixture(scope="module")
def one():
    return scene(PixelEdge(4))


class Ear(Watch):
    def __init__(self):
        self.heard = []

    def started(self, attack):
        self.heard.append(("started", attack.name))

    def progress(self, attack, share):
        self.heard.append((share, attack.name))

    def ended(self, attack, outcome):
        self.heard.append((outcome.status, attack.name))


def test_outcomes_by_name_in_order_with_their_times(one):
    attacks = [attack("b", KINDS["recovered"]), attack("a", KINDS["skipped"])]
    ear = Ear()
    found = run_audit(one, attacks, watch=ear)
    assert list(found) == ["b", "a"]
    assert replace(found["b"], seconds=0.0) == KINDS["recovered"]
    assert found["b"].seconds > 0
    assert ear.heard == [
        ("started", "b"), (0.5, "b"), ("done", "b"), ("started", "a"), (0.5, "a"), ("skipped", "a")
    ]  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError("no memory"), MemoryError(), AssertionError("x")])
def test_an_attack_that_fails_is_unknown_and_the_others_go_on(one, error, caplog):
    found = run_audit(one, [attack("a", error), attack("b", KINDS["partly"])])
    assert found["a"].status == "not converged"
    assert type(error).__name__ in found["a"].reason
    assert str(error) in found["a"].reason
    assert "Traceback" in caplog.text
    assert found["b"].status == "done"


def test_what_is_no_outcome_is_a_failure(one):
    assert run_audit(one, [attack("a", None)])["a"].status == "not converged"


def test_ctrl_c_ends_an_audit_and_keeps_what_is_finished(one, tmp_path):
    first, second = attack("a", KINDS["partly"]), attack("b", KINDS["partly"])
    second.run = lambda self, scene, progress: (_ for _ in ()).throw(KeyboardInterrupt)
    store = Store(tmp_path, one, {})
    with pytest.raises(KeyboardInterrupt):
        run_audit(one, [first, second], store=store)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]
    again = attack("a", KINDS["withstood"])
    assert run_audit(one, [again], store=Store(tmp_path, one, {}))["a"].result == KINDS["partly"].result
    assert again.runs == 0


def test_a_positive_control_that_fails_is_unknown(one):
    flat = Outcome("done", measure="m", floor=0.5, result=0.4, ceiling=0.5, says="It is right in 40 %.")
    found = run_audit(one, [attack("a", flat)])["a"]
    assert found.status == "not converged"
    assert found.reason == "It does no better where nothing is hidden (0.5) than by chance (0.5)."
    lucky = run_audit(one, [attack("a", replace(flat, result=0.6))])["a"]
    assert (lucky.status, lucky.recovered) == ("not converged", None)
    assert replace(flat, result=0.6).recovered is None


def test_what_was_not_asked_for_is_skipped_unless_it_is_known(one, tmp_path):
    store = Store(tmp_path, one, {})
    one_of, other = attack("a", KINDS["partly"]), attack("b", KINDS["partly"])
    found = run_audit(one, [one_of, other], only=["a"], store=store)
    assert [outcome.status for outcome in found.values()] == ["done", "skipped"]
    found = run_audit(one, [one_of, other], only=["b"], store=store)
    assert [outcome.status for outcome in found.values()] == ["done", "done"]
    assert (one_of.runs, other.runs) == (1, 1)


def test_what_has_nothing_to_attack_is_asked_again_and_not_run(one, tmp_path):
    unfit = attack("a", KINDS["partly"], unfit=KINDS["does not apply"])
    assert run_audit(one, [unfit], store=Store(tmp_path, one, {}))["a"].status == "does not apply"
    assert unfit.runs == 0
    assert not list(tmp_path.iterdir())


def test_all_of_an_outcome_is_kept(one, tmp_path):
    made, store = attack("a", FULL), Store(tmp_path, one, {"edge": "x"})
    store.keep(made, FULL)
    found = store.find(made)
    assert replace(found, pictures=()) == replace(FULL, pictures=(), result=found.result)
    assert found.result == pytest.approx(0.995)
    assert found.variants == FULL.variants
    assert found.curves == FULL.curves
    for line, kept in zip(FULL.pictures, found.pictures, strict=True):
        assert (line.caption, line.limit, line.titles, line.right) == (
            kept.caption, kept.limit, kept.titles, kept.right
        )  # fmt: skip
        for picture, same in zip(line.pictures, kept.pictures, strict=True):
            np.testing.assert_array_equal(picture, same)
            assert picture.dtype == same.dtype


def test_what_was_made_of_something_else_does_not_count(one, tmp_path):
    made = attack("a", FULL)
    Store(tmp_path, one, {"edge": "x"}).keep(made, FULL)
    assert Store(tmp_path, one, {"edge": "x"}).find(made) is not None
    assert Store(tmp_path, one, {"edge": "y"}).find(made) is None
    others: list[Scene] = [
        dataclasses.replace(one, seed=1),
        dataclasses.replace(one, effort="full"),
        dataclasses.replace(one, victims=textures(16, 2, 5)),
        dataclasses.replace(one, gallery=textures(16, 1, 6)),
    ]
    for other in others:
        assert Store(tmp_path, other, {"edge": "x"}).find(made) is None


def test_what_other_attacks_made_of_does_not_count_when_one_changed(one, tmp_path, monkeypatch):
    """`output_side` runs two others."""
    made = attack("a", FULL)
    Store(tmp_path, one, {}).keep(made, FULL)
    digest = stored.file_digest
    monkeypatch.setattr(stored, "file_digest", lambda path: "x" if path.name == "membership.py" else digest(path))
    assert Store(tmp_path, one, {}).find(made) is None


def test_what_a_part_failed_of_counts_and_is_tried_again(one, tmp_path):
    class Half(attack("half", FULL)):
        fails = True

        def run(self, scene, progress):
            if Half.fails:
                raise PartFailed(replace(FULL, says="half of it"))
            return FULL

    store = Store(tmp_path, one, {})
    assert run_audit(one, [Half], store=store)["half"].says == "half of it"
    Half.fails = False
    assert run_audit(one, [Half], store=store)["half"].says == FULL.says


def test_a_damaged_file_does_not_count(one, tmp_path):
    made, store = attack("a", FULL), Store(tmp_path, one, {})
    store.keep(made, FULL)
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    assert store.find(made) is None


def test_an_attack_draws_the_same_whatever_ran_before(one):
    class Random(Attack):
        name, title, knows, source = "random", "?", "nothing", "this test"

        def run(self, scene, progress):
            value = float(torch.rand(()))
            return Outcome("done", measure="m", floor=0.0, result=value, ceiling=1.0, says="s")

    torch.manual_seed(1)
    first = run_audit(one, [Random])["random"].result
    state = torch.get_rng_state()
    assert run_audit(one, [attack("a", FULL), Random])["random"].result == first
    assert torch.equal(torch.get_rng_state(), state)
